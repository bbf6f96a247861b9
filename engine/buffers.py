"""Activations of a step, in memory that all layers share."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .gemma4 import Layer


class Buffers:
    """Activations of up to ``rows`` rows, shared by all layers and all steps.

    What attention holds and what the feed-forward holds lie in the same memory: neither is needed
    while the other is computed.
    """

    def __init__(self, layers: list["Layer"], rows: int, like: torch.Tensor) -> None:
        hidden = layers[0].out.shape[0]
        heads = max(layer.out.shape[1] for layer in layers)
        joint = max(layer.qkv.shape[0] for layer in layers)
        attention = [joint, heads, heads]
        feedforward = [layers[0].gate_up.shape[0], layers[0].down.shape[1]]
        widths = [hidden] * 3 + [max(sum(attention), sum(feedforward))]
        # Rows of nobody are computed too, from what is here: it must be finite.
        self._memory = torch.zeros(rows * sum(widths), device=like.device, dtype=like.dtype)
        self.residual, self.x, self.y, either = (
            part.view(rows, width)
            for part, width in zip(
                self._memory.split([rows * width for width in widths]), widths, strict=True
            )
        )
        self.qkv, self.query, self.attended = _rows_of(either, attention)
        self.gate_up, self.hidden = _rows_of(either, feedforward)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes


def _rows_of(memory: torch.Tensor, widths: list[int]) -> list[torch.Tensor]:
    """Contiguous [rows, width] tensors behind one another in [rows, at least their sum]."""
    rows = memory.shape[0]
    parts = memory.view(-1)[: rows * sum(widths)].split([rows * width for width in widths])
    return [part.view(rows, width) for part, width in zip(parts, widths, strict=True)]


def view(buffer: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """Contiguous [rows, width] at the start of a buffer of wider rows."""
    return buffer.view(-1)[: rows * width].view(rows, width)
