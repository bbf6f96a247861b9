"""Which kernel computes a linear layer, by the rows of the step."""

from typing import TYPE_CHECKING

import torch

from eightfold.kernels.layers.gated_gelu import gated_gelu
from eightfold.kernels.layers.linear_few_rows import MAX_ROWS, linear_few_rows
from eightfold.kernels.layers.linear_many_rows import (
    fills_tiles,
    linear_many_rows,
    linear_many_rows_fits,
)

if TYPE_CHECKING:
    from .gemma4_decoder import Layer


class Products:
    """Products with the weights of ``layers``, [out, in] each.

    Few rows are bound by reading the weights; for many rows there are kernels for Hopper, and
    torch's own elsewhere and for numbers of rows that do not fill theirs.
    """

    def __init__(self, layers: list["Layer"]) -> None:
        self._gate_up = layers[0].gate_up
        plain = [weight for layer in layers for weight in (layer.qkv, layer.out, layer.down)]
        self._dense = all(linear_many_rows_fits(weight) for weight in plain) and all(
            linear_many_rows_fits(layer.gate_up, gated=True) for layer in layers
        )

    def apart(self, rows: int) -> bool:
        """Whether gate and up are written to memory before they are multiplied."""
        return rows > MAX_ROWS and not (
            self._dense and fills_tiles(rows, self._gate_up, gated=True)
        )

    def linear(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """``out = x @ weight.T``: x [rows, in], weight [out, in], out [rows, out]."""
        rows = x.shape[0]
        if rows <= MAX_ROWS:
            linear_few_rows(x, weight, out, pdl=True)
        elif self._dense and fills_tiles(rows, weight):
            linear_many_rows(x, weight, out, pdl=True)
        else:
            torch.mm(x, weight.T, out=out)

    def gated(
        self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, gate_up: torch.Tensor | None
    ) -> None:
        """``out = gelu_tanh(x @ gate.T) * (x @ up.T)``.

        Args:
            x: [rows, in]. weight: [2 * inner, in], gate rows first. out: [rows, inner].
            gate_up: [rows, 2 * inner], overwritten; given where they are ``apart``.
        """
        if gate_up is not None:
            torch.mm(x, weight.T, out=gate_up)
            gated_gelu(gate_up, out)
        elif x.shape[0] <= MAX_ROWS:
            linear_few_rows(x, weight, out, gated=True, pdl=True)
        else:
            linear_many_rows(x, weight, out, gated=True, pdl=True)
