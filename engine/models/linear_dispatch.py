"""Chooses the kernel of a linear layer by the number of rows in the step."""

import torch

from eightfold.kernels.layers.gated_activation import gated_gelu
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.linear_many_rows import (
    fills_tiles,
    linear_many_rows,
    linear_many_rows_fits,
)

from .fused_layer import FusedLayer


class LinearDispatch:
    """Linear layers with the weights of ``layers``, [out, in] each.

    With few rows the time is that of reading the weights. For many rows there are kernels for
    Hopper; torch's own run on other GPUs, and for numbers of rows that leave tiles part-empty.
    """

    def __init__(self, layers: list[FusedLayer]) -> None:
        self._gate_up = layers[0].gate_up
        plain = [weight for layer in layers for weight in (layer.qkv, layer.out, layer.down)]
        self._many_rows_fits = all(linear_many_rows_fits(weight) for weight in plain) and all(
            linear_many_rows_fits(layer.gate_up, gated=True) for layer in layers
        )

    def writes_gate_up(self, rows: int) -> bool:
        """Return True if gate and up are written to memory before they are multiplied."""
        return rows > MAX_ROWS and not (
            self._many_rows_fits and fills_tiles(rows, self._gate_up, gated=True)
        )

    def linear(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """Compute ``out = x @ weight.T``: x [rows, in], weight [out, in], out [rows, out]."""
        rows = x.shape[0]
        if rows <= MAX_ROWS:
            linear_few_rows(x, weight, out, pdl=True)
        elif self._many_rows_fits and fills_tiles(rows, weight):
            linear_many_rows(x, weight, out, pdl=True)
        else:
            torch.mm(x, weight.T, out=out)

    def gated(
        self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, gate_up: torch.Tensor | None
    ) -> None:
        """Compute ``out = gelu_tanh(x @ gate.T) * (x @ up.T)``.

        Args:
            x: [rows, in].
            weight: [2 * inner, in], gate rows first.
            out: [rows, inner].
            gate_up: [rows, 2 * inner], overwritten; needed if :meth:`writes_gate_up`, else
                ``None``.
        """
        if gate_up is not None:
            torch.mm(x, weight.T, out=gate_up)
            gated_gelu(gate_up, out)
        elif x.shape[0] <= MAX_ROWS:
            linear_few_rows(x, weight, out, gated=True, pdl=True)
        else:
            linear_many_rows(x, weight, out, gated=True, pdl=True)
