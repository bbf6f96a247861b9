"""Buffers for the activations of a step, shared by all layers."""

from collections.abc import Callable

import torch

from .layer_weights import FusedLayer


class ActivationBuffers:
    """Activations of up to ``rows`` rows, shared by all layers and all steps.

    The activations of attention and those of the feed-forward overlap in memory: neither are needed
    while the others are computed.

    Args:
        writes_gate_up: returns True if a step of that many rows writes gate and up to memory.
        like: tensor whose device and dtype the buffers take.
    """

    def __init__(
        self,
        layers: list[FusedLayer],
        rows: int,
        writes_gate_up: Callable[[int], bool],
        like: torch.Tensor,
    ) -> None:
        hidden = layers[0].out.shape[0]
        heads = max(layer.out.shape[1] for layer in layers)
        qkv = max(layer.qkv.shape[0] for layer in layers)
        attention = [qkv, heads, heads]
        inner = max((layer.down.shape[1] for layer in layers if layer.down is not None), default=0)
        most = max((count for count in range(1, rows + 1) if writes_gate_up(count)), default=0)
        shared = max(rows * sum(attention), rows * inner, most * 3 * inner)
        # Padding rows are computed from what is in here, too: it must be finite.
        self._memory = torch.zeros(rows * hidden * 3 + shared, device=like.device, dtype=like.dtype)
        *streams, self._shared = self._memory.split([rows * hidden] * 3 + [shared])
        self.residual, self.x, self.y = (part.view(rows, hidden) for part in streams)
        self.qkv, self.query, self.attended = _consecutive(self._shared, rows, attention)
        (self.hidden,) = _consecutive(self._shared, rows, [inner])

    def gate_up(self, rows: int, inner: int) -> torch.Tensor:
        """Return [rows, 2 * inner] behind as many rows of ``hidden``.

        There is room for it if ``writes_gate_up`` is true of ``rows``.
        """
        return self._shared[rows * inner : rows * 3 * inner].view(rows, 2 * inner)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes


def _consecutive(memory: torch.Tensor, rows: int, widths: list[int]) -> list[torch.Tensor]:
    """Contiguous tensors [rows, width], one after another from the start of flat memory."""
    sizes = [rows * width for width in widths]
    parts = memory[: sum(sizes)].split(sizes)
    return [part.view(rows, width) for part, width in zip(parts, widths, strict=True)]


def narrow(buffer: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """Return contiguous [rows, width] from the start of a buffer with wider rows."""
    return buffer.view(-1)[: rows * width].view(rows, width)
