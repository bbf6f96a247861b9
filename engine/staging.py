"""Host memory that readers fill and the device empties.

A CPU can be the device, without page locks and streams: that is how tests run the loader.
"""

import mmap

import torch


class Staging:
    """Buffers of equal size, page-locked where the device is a GPU, until :meth:`close`.

    Registered by hand: what PyTorch's allocator pins, it keeps.
    """

    def __init__(self, device: torch.device, count: int, nbytes: int) -> None:
        nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, count * nbytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._whole: torch.Tensor | None = torch.frombuffer(self._map, dtype=torch.uint8)
        self._pinned = 0
        if device.type == "cuda":
            address = self._whole.data_ptr()
            error = torch.cuda.cudart().cudaHostRegister(address, count * nbytes, 0)
            torch.cuda.check_error(int(error))
            self._pinned = address
        self.buffers: list[torch.Tensor] = list(self._whole.split(nbytes))

    def close(self) -> None:
        """Give the memory back; nothing may read or write it any more."""
        self.buffers.clear()
        if self._pinned:
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostUnregister(self._pinned)))
            self._pinned = 0
        # The map ends with the tensor: both refer to it.
        self._whole = None


class Lane:
    """One reader's buffers in turn, and the stream on which they go to the device."""

    def __init__(self, device: torch.device, buffers: list[torch.Tensor]) -> None:
        self._device = device
        self._buffers = buffers
        self._next = 0
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
            self._events = [torch.cuda.Event() for _ in buffers]
            self._used = [False] * len(buffers)

    def take(self) -> torch.Tensor:
        """The buffer whose turn it is, once the device has emptied it."""
        if self._stream is not None and self._used[self._next]:
            self._events[self._next].synchronize()
        return self._buffers[self._next]

    def send(self, parts: list[tuple[torch.Tensor, torch.dtype, torch.Tensor]]) -> None:
        """Copy parts of the taken buffer: bytes, the type they have, the flat place they fill."""
        if self._stream is None:
            for part, dtype, place in parts:
                aligned = part if part.data_ptr() % dtype.itemsize == 0 else part.clone()
                place.copy_(aligned.view(dtype))
            return
        with torch.cuda.stream(self._stream):
            for part, dtype, place in parts:
                if place.dtype == dtype:
                    place.view(torch.uint8).copy_(part, non_blocking=True)
                else:
                    raw = part.to(self._device, non_blocking=True)
                    place.copy_(raw.view(dtype))
            self._events[self._next].record(self._stream)
        self._used[self._next] = True
        self._next = (self._next + 1) % len(self._buffers)

    def finish(self) -> None:
        """Wait until all that was sent is there."""
        if self._stream is not None:
            self._stream.synchronize()
