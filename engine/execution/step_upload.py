"""Host arrays to the device, all of a step in one copy."""

from collections.abc import Mapping

import numpy as np
import torch

ALIGNMENT = 16  # bytes; also what Triton assumes of pointers it specialises on
DEPTH = 3  # staging buffers in turn: one being filled, and those of the steps in flight

_TORCH = {
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
}


def packed_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """Bytes that the arrays take behind one another."""
    return sum(_padded(array.nbytes) for array in arrays.values())


class StepUpload:
    """A device buffer that arrays of one step are copied into.

    The place of each array follows from the shapes before it, so arrays of the same shapes always
    lie in the same place: a captured graph finds them there. What an earlier call returned is
    overwritten, in the stream's order, so that steps queued before still see their own.

    Args:
        nbytes: room; a call that needs more raises ValueError.
    """

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._buffer = torch.zeros(nbytes, dtype=torch.uint8, device=device)
        pinned = device.type == "cuda"
        self._staging = [
            torch.zeros(nbytes, dtype=torch.uint8, pin_memory=pinned) for _ in range(DEPTH)
        ]
        self._copied: list[torch.cuda.Event | None] = [None] * DEPTH
        self._turn = 0

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Copy the arrays (int32, int64 or float32); views of the device buffer, same shapes."""
        size = packed_bytes(arrays)
        if size > self._buffer.numel():
            raise ValueError(f"{size} bytes do not fit an upload of {self._buffer.numel()}")
        self._turn = (self._turn + 1) % DEPTH
        staging, copied = self._staging[self._turn], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        host = staging.numpy()
        views: dict[str, torch.Tensor] = {}
        offset = 0
        for name, array in arrays.items():
            end = offset + array.nbytes
            host[offset:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            dtype = _TORCH[array.dtype]
            views[name] = self._buffer[offset:end].view(dtype).view(array.shape)
            offset += _padded(array.nbytes)
        self._buffer[:size].copy_(staging[:size], non_blocking=True)
        if self._buffer.is_cuda:
            event = torch.cuda.Event()
            event.record()
            self._copied[self._turn] = event
        return views


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
