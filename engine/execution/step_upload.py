"""Uploads the host arrays of a step to the device, all of them in one copy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

ALIGNMENT = 16  # bytes; the alignment of pointers that Triton specializes kernels on
NUM_HOST_BUFFERS = 3  # one being filled, and one for each step in flight

_TORCH_DTYPES = {
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
}


def packed_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the bytes that the arrays take, one aligned after another."""
    return sum(_aligned(array.nbytes) for array in arrays.values())


@dataclass(slots=True)
class HostBuffer:
    """Host memory of an upload, laid out for arrays of some shapes.

    Attributes:
        memory: uint8, pinned beside a GPU.
        copied: recorded once the last copy from it is done; ``None`` without a GPU.
        kinds: shape and type of each array that it is laid out for.
        parts: the place of each of these arrays.
        size: bytes that they take.
    """

    memory: torch.Tensor
    copied: torch.cuda.Event | None = None
    kinds: list[tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays to their places.

        Raises:
            ValueError: if they do not fit.
        """
        kinds = [(array.shape, array.dtype) for array in arrays.values()]
        if kinds != self.kinds:
            self._lay_out(arrays)
            self.kinds = kinds
        for part, array in zip(self.parts, arrays.values(), strict=True):
            part[...] = array

    def _lay_out(self, arrays: Mapping[str, np.ndarray]) -> None:
        size = packed_bytes(arrays)
        if size > len(self.memory):
            raise ValueError(f"{size} bytes do not fit an upload of {len(self.memory)}.")
        memory, offset = self.memory.numpy(), 0
        self.kinds, self.parts, self.size = [], [], size
        for array in arrays.values():
            place = memory[offset : offset + array.nbytes]
            self.parts.append(place.view(array.dtype).reshape(array.shape))
            offset += _aligned(array.nbytes)


class StepUpload:
    """A device buffer that the arrays of a step are copied into.

    The offset of each array follows from the shapes of those before it, so that arrays of the same
    shapes always have the same addresses: a captured graph finds them there. Each call overwrites
    what an earlier one has returned, but in the order of the stream, so that steps queued before it
    still read their own arrays.

    Args:
        nbytes: size of the buffer.
    """

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._buffer = torch.zeros(nbytes, dtype=torch.uint8, device=device)
        pinned = device.type == "cuda"
        self._host_buffers = [
            HostBuffer(torch.zeros(nbytes, dtype=torch.uint8, pin_memory=pinned))
            for _ in range(NUM_HOST_BUFFERS)
        ]
        self._turn = 0

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Copy the arrays to the device.

        Args:
            arrays: int32, int64 or float32.

        Returns:
            Views of the device buffer with the shapes of the arrays.

        Raises:
            ValueError: if the arrays do not fit the buffer.
        """
        self.copy(arrays)
        views: dict[str, torch.Tensor] = {}
        offset = 0
        for name, array in arrays.items():
            part = self._buffer[offset : offset + array.nbytes]
            views[name] = part.view(_TORCH_DTYPES[array.dtype]).view(array.shape)
            offset += _aligned(array.nbytes)
        return views

    def copy(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy the arrays to the device buffer, from whose addresses a captured graph reads.

        Raises:
            ValueError: if the arrays do not fit the buffer.
        """
        self._turn = (self._turn + 1) % NUM_HOST_BUFFERS
        host = self._host_buffers[self._turn]
        if host.copied is not None:
            host.copied.synchronize()
        host.fill(arrays)
        self._buffer[: host.size].copy_(host.memory[: host.size], non_blocking=True)
        if self._buffer.is_cuda:
            host.copied = torch.cuda.Event()
            host.copied.record()


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
