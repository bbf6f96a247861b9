"""Uploads the host arrays of a step to the device, all of them in one copy."""

from collections.abc import Mapping

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
            torch.zeros(nbytes, dtype=torch.uint8, pin_memory=pinned)
            for _ in range(NUM_HOST_BUFFERS)
        ]
        self._copied: list[torch.cuda.Event | None] = [None] * NUM_HOST_BUFFERS
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
        size = packed_bytes(arrays)
        if size > self._buffer.numel():
            raise ValueError(f"{size} bytes do not fit an upload of {self._buffer.numel()}.")
        self._turn = (self._turn + 1) % NUM_HOST_BUFFERS
        host, copied = self._host_buffers[self._turn], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        staged = host.numpy()
        offset = 0
        for array in arrays.values():
            end = offset + array.nbytes
            staged[offset:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            offset += _aligned(array.nbytes)
        self._buffer[:size].copy_(host[:size], non_blocking=True)
        if self._buffer.is_cuda:
            event = torch.cuda.Event()
            event.record()
            self._copied[self._turn] = event


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
