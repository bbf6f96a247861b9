"""Chooses the kernel of a linear layer by the number of rows in the step."""

import torch

from eightfold.kernels.layers.beside_experts.linear_prefetched import (
    linear_prefetched,
    linear_prefetched_fits,
)
from eightfold.kernels.layers.gated_activation import gated_activation
from eightfold.kernels.layers.linear_chain import COUNTERS, linear_stream, linear_stream_fits
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.linear_many_rows import (
    fills_tiles,
    linear_many_rows,
    linear_many_rows_fits,
)
from eightfold.kernels.quantized.stored_matrix import StoredMatrix, Weight
from eightfold.kernels.quantized.stored_product import product_parts, stored_product

from .layer_weights import FusedLayer

MAX_STREAM_ROWS = 16  # of more rows, a chain's programs read x too often


class LinearDispatch:
    """Linear layers with the weights of ``layers``, [out, in] each.

    With few rows the time is that of reading the weights. For many rows there are kernels for
    Hopper; torch's own run on other GPUs, and for numbers of rows that leave tiles part-empty.

    Args:
        activation: of gated layers, a key of ``linear_few_rows.ACTIVATIONS``.
        streams: True to compute layers of few rows as chains of their own where there is a kernel:
            faster for the small layers beside experts.
    """

    def __init__(self, layers: list[FusedLayer], activation: str, streams: bool = False) -> None:
        self._activation = activation
        self._gated = [layer.gate_up for layer in layers if layer.gate_up is not None]
        plain = [weight for layer in layers for weight in (layer.qkv, layer.out, layer.down)]
        self._many_rows_fits = all(
            isinstance(weight, torch.Tensor) and linear_many_rows_fits(weight)
            for weight in plain
            if weight is not None
        ) and all(
            isinstance(weight, torch.Tensor)
            and linear_many_rows_fits(weight, gated=True, activation=activation)
            for weight in self._gated
        )

        weights = [weight for weight in (*plain, *self._gated) if weight is not None]
        self._streams = streams and all(
            isinstance(weight, torch.Tensor) and linear_stream_fits(weight, activation)
            for weight in weights
        )
        self._counters = torch.zeros(
            COUNTERS, dtype=torch.int32, device=layers[0].rotary.cos.device
        )

    def writes_gate_up(self, rows: int) -> bool:
        """Return True if a layer writes gate and up to memory before they are multiplied."""
        return rows > MAX_ROWS and not all(
            isinstance(weight, StoredMatrix) or self._fills(rows, weight, True)
            for weight in self._gated
        )

    def _fills(self, rows: int, weight: torch.Tensor, gated: bool) -> bool:
        return self._many_rows_fits and fills_tiles(rows, weight, gated=gated)

    def linear(self, x: torch.Tensor, weight: Weight, out: torch.Tensor) -> None:
        """Compute ``out = x @ weight.T``: x [rows, in], weight [out, in], out [rows, out]."""
        rows = x.shape[0]
        if isinstance(weight, StoredMatrix):
            stored_product(x, weight, out, pdl=True)
        elif rows <= MAX_STREAM_ROWS and self._streams and linear_prefetched_fits(rows, weight):
            linear_prefetched(x, weight, out, pdl=True)
        elif rows <= MAX_STREAM_ROWS and self._streams:
            linear_stream(x, weight, out, self._counters, activation=self._activation, pdl=True)
        elif rows <= MAX_ROWS:
            linear_few_rows(x, weight, out, pdl=True)
        elif self._fills(rows, weight, False):
            linear_many_rows(x, weight, out, pdl=True)
        else:
            torch.mm(x, weight.T, out=out)

    def summands(self, x: torch.Tensor, weight: Weight, out: torch.Tensor) -> torch.Tensor:
        """Compute ``x @ weight.T`` for ``add_rms_norm``, which adds up parts.

        Args:
            x: [rows, in].
            weight: [out, in].
            out: [rows, out], may be overwritten.

        Returns:
            ``out`` with the result, or parts of it, float32 [parts, rows, out].
        """
        rows = x.shape[0]
        if isinstance(weight, StoredMatrix):
            parts = product_parts(weight, rows, x.dtype)
            if parts > 1:
                split = torch.empty(parts, *out.shape, device=x.device)
                return stored_product(x, weight, split, pdl=True)
        self.linear(x, weight, out)
        return out

    def gated(
        self, x: torch.Tensor, weight: Weight, out: torch.Tensor, gate_up: torch.Tensor | None
    ) -> None:
        """Compute ``out = activation(x @ gate.T) * (x @ up.T)``.

        Args:
            x: [rows, in].
            weight: [2 * inner, in], gate rows first.
            out: [rows, inner].
            gate_up: [rows, 2 * inner], overwritten; needed if :meth:`writes_gate_up`, else
                ``None``.
        """
        rows, activation = x.shape[0], self._activation
        if isinstance(weight, StoredMatrix):
            stored_product(x, weight, out, gated=True, activation=activation, pdl=True)
        elif rows <= MAX_STREAM_ROWS and self._streams:
            linear_stream(
                x, weight, out, self._counters, gated=True, activation=activation, pdl=True
            )
        elif rows <= MAX_ROWS:
            linear_few_rows(x, weight, out, gated=True, activation=activation, pdl=True)
        elif gate_up is None:
            linear_many_rows(x, weight, out, gated=True, activation=activation, pdl=True)
        else:
            torch.mm(x, weight.T, out=gate_up)
            gate, up = gate_up.chunk(2, dim=1)
            gated_activation(gate, up, out, activation)
