"""Host memory that a reader fills and the device empties.

A CPU can be the device, without page locks and streams: that is how tests run the loader.
"""

import ctypes
import functools
import mmap
import sys
from contextlib import suppress
from types import TracebackType

import torch

from .read_spans import Segment


@functools.cache
def _driver() -> ctypes.PyDLL | None:
    """CUDA's driver, by calls that keep the interpreter's lock; ``None`` where there is none.

    PyTorch's give the lock up. Taking it again, among sixteen readers, lasts longer than the call.
    """
    if torch.version.cuda is None or not sys.platform.startswith("linux"):
        return None
    driver = ctypes.PyDLL("libcuda.so.1")
    pointer, place = ctypes.c_void_p, ctypes.c_uint64
    driver.cuMemcpyHtoDAsync_v2.argtypes = (place, pointer, ctypes.c_size_t, pointer)
    driver.cuEventRecord.argtypes = (pointer, pointer)
    driver.cuEventQuery.argtypes = (pointer,)
    return driver


def _check(status: int) -> None:
    """Raise for what a call of the runtime, or of the driver, which has its numbers, returned."""
    if status != 0:
        torch.cuda.check_error(status)


class Lane:
    """One reader's buffers in turn, and the stream on which they go to the device.

    A context of the thread that reads: the memory is there, page-locked for a GPU, from entry to
    exit. It is locked by hand: what PyTorch's allocator locks, it keeps.
    """

    def __init__(self, device: torch.device, buffers: int, nbytes: int) -> None:
        self._device = device
        self._count = buffers
        self._nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._buffers: list[torch.Tensor] = []
        self._views: list[memoryview] = []
        self._locked: list[int] = []  # addresses of the buffers that are, the first ones
        self._next = 0
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
            self._emptied = [torch.cuda.Event() for _ in range(buffers)]

    def __enter__(self) -> "Lane":
        # Private, since the kernel gives huge pages to nothing else unasked; locking small ones
        # takes longer than filling them.
        memory = mmap.mmap(
            -1, self._count * self._nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        # Nor is it a forked child's: the first write after a fork moves a page that both have, and
        # the device might read on from where it was locked.
        for advice in ("MADV_DONTFORK", "MADV_HUGEPAGE"):
            if hasattr(mmap, advice):
                with suppress(OSError):  # a kernel built without it
                    memory.madvise(getattr(mmap, advice))
        self._buffers = list(torch.frombuffer(memory, dtype=torch.uint8).split(self._nbytes))
        self._views = [buffer.numpy().data for buffer in self._buffers]
        if self._stream is not None:
            torch.cuda.set_stream(self._stream)
            for event in self._emptied:
                event.record(self._stream)  # which makes it
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.finish()
        finally:
            try:
                while self._locked:
                    status = torch.cuda.cudart().cudaHostUnregister(self._locked.pop())
                    _check(int(status))
            finally:
                # The memory ends with its last view: unlocked before, since its addresses may be
                # another's at once.
                self._buffers, self._views = [], []

    @property
    def closed(self) -> bool:
        """Whether it holds no memory."""
        return not self._buffers and not self._locked

    def take(self) -> memoryview:
        """The buffer whose turn it is, once the device has emptied it."""
        if self._next < len(self._locked):
            driver, event = _driver(), self._emptied[self._next]
            if driver is None or driver.cuEventQuery(event.cuda_event) != 0:
                event.synchronize()
        return self._views[self._next]

    def send(self, segments: list[Segment]) -> None:
        """Copy the segments that lie in the taken buffer, one after another, to their places."""
        buffer = self._buffers[self._next]
        if self._stream is None:
            self._fill(buffer, segments)
        else:
            if self._next == len(self._locked):
                # Only here: the first read has made its pages, beside those of the other readers.
                error = torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)
                _check(int(error))
                self._locked.append(buffer.data_ptr())
            self._start(buffer, segments, self._stream)
        self._next = (self._next + 1) % self._count

    def finish(self) -> None:
        """Wait until all that was sent is there."""
        if self._stream is not None:
            self._stream.synchronize()

    def _fill(self, buffer: torch.Tensor, segments: list[Segment]) -> None:
        at = 0
        for segment in segments:
            part = buffer[at : at + segment.nbytes]
            at += segment.nbytes
            aligned = part if part.data_ptr() % segment.dtype.itemsize == 0 else part.clone()
            segment.place.copy_(aligned.view(segment.dtype))

    def _start(
        self, buffer: torch.Tensor, segments: list[Segment], stream: torch.cuda.Stream
    ) -> None:
        """Start the copies, and the event after them."""
        driver, event, at = _driver(), self._emptied[self._next], 0
        for segment in segments:
            if driver is not None and segment.whole.dtype == segment.dtype:
                status = driver.cuMemcpyHtoDAsync_v2(
                    segment.address,
                    self._locked[self._next] + at,
                    segment.nbytes,
                    stream.cuda_stream,
                )
                _check(status)
            else:
                part = buffer[at : at + segment.nbytes].to(self._device, non_blocking=True)
                segment.place.copy_(part.view(segment.dtype))
            at += segment.nbytes
        if driver is None:
            event.record(stream)
        else:
            _check(driver.cuEventRecord(event.cuda_event, stream.cuda_stream))
