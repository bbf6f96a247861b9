"""Activations of a step, in memory that all layers share."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .gemma4_decoder import Layer


class Buffers:
    """Activations of up to ``rows`` rows, shared by all layers and all steps.

    What attention holds and what the feed-forward holds lie in the same memory: neither is needed
    while the other is computed.

    Args:
        apart: whether a step of so many rows writes gate and up to memory.
    """

    def __init__(
        self,
        layers: list["Layer"],
        rows: int,
        apart: Callable[[int], bool],
        like: torch.Tensor,
    ) -> None:
        hidden = layers[0].out.shape[0]
        heads = max(layer.out.shape[1] for layer in layers)
        joint = max(layer.qkv.shape[0] for layer in layers)
        attention = [joint, heads, heads]
        self._gate_up, inner = layers[0].gate_up.shape[0], layers[0].down.shape[1]
        most = max((count for count in range(1, rows + 1) if apart(count)), default=0)
        either = max(rows * sum(attention), rows * inner, most * (inner + self._gate_up))
        # Rows of nobody are computed too, from what is here: it must be finite.
        self._memory = torch.zeros(rows * hidden * 3 + either, device=like.device, dtype=like.dtype)
        *streams, self._either = self._memory.split([rows * hidden] * 3 + [either])
        self.residual, self.x, self.y = (part.view(rows, hidden) for part in streams)
        self.qkv, self.query, self.attended = _behind(self._either, rows, attention)
        (self.hidden,) = _behind(self._either, rows, [inner])

    def gate_up(self, rows: int) -> torch.Tensor:
        """[rows, 2 * inner] behind as many rows of ``hidden``, for a number that is ``apart``."""
        begin, size = rows * self.hidden.shape[1], rows * self._gate_up
        return self._either[begin : begin + size].view(rows, self._gate_up)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes


def _behind(memory: torch.Tensor, rows: int, widths: list[int]) -> list[torch.Tensor]:
    """Contiguous [rows, width] tensors behind one another at the start of flat memory."""
    sizes = [rows * width for width in widths]
    parts = memory[: sum(sizes)].split(sizes)
    return [part.view(rows, width) for part, width in zip(parts, widths, strict=True)]


def view(buffer: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """Contiguous [rows, width] at the start of a buffer of wider rows."""
    return buffer.view(-1)[: rows * width].view(rows, width)
