"""A ring of page-locked host buffers, from which a reader's bytes are copied to the device.

The device may also be a CPU, without page locking and streams. Tests run the loader that way.
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
def _cuda_driver() -> ctypes.PyDLL | None:
    """Return CUDA's driver, called with the GIL held; ``None`` if there is none.

    PyTorch's own calls release the GIL. Acquiring it again, among sixteen readers, takes longer
    than the call.
    """
    if torch.version.cuda is None or not sys.platform.startswith("linux"):
        return None
    driver = ctypes.PyDLL("libcuda.so.1")
    pointer, address = ctypes.c_void_p, ctypes.c_uint64
    driver.cuMemcpyHtoDAsync_v2.argtypes = (address, pointer, ctypes.c_size_t, pointer)
    driver.cuEventRecord.argtypes = (pointer, pointer)
    driver.cuEventQuery.argtypes = (pointer,)
    return driver


def _check(status: int) -> None:
    """Raise if a call of the CUDA runtime or driver failed; both number their errors alike."""
    if status != 0:
        torch.cuda.check_error(status)


class PinnedRing:
    """One reader's ring of buffers, and the stream on which they are copied to the device.

    A context manager of the thread that reads: the memory exists, and is page-locked for a GPU,
    from entry to exit. It is locked explicitly, because PyTorch's allocator keeps what it locks.

    Args:
        device: the device that the buffers are copied to.
        buffers: number of buffers.
        nbytes: bytes of a buffer, rounded up to whole pages.
    """

    def __init__(self, device: torch.device, buffers: int, nbytes: int) -> None:
        self._device = device
        self._count = buffers
        self._nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._buffers: list[torch.Tensor] = []
        self._views: list[memoryview] = []
        self._locked: list[int] = []  # addresses of the locked buffers, which are the first ones
        self._next = 0
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
            self._copied = [torch.cuda.Event() for _ in range(buffers)]

    def __enter__(self) -> "PinnedRing":
        # Private, because by default the kernel gives huge pages to no other kind of mapping.
        # Locking small pages takes longer than filling them.
        memory = mmap.mmap(
            -1, self._count * self._nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        # Not inherited by forked children: the first write after a fork moves a shared page, and
        # the device could keep reading from where it was when it was locked.
        for advice in ("MADV_DONTFORK", "MADV_HUGEPAGE"):
            if hasattr(mmap, advice):
                with suppress(OSError):  # a kernel built without it
                    memory.madvise(getattr(mmap, advice))
        self._buffers = list(torch.frombuffer(memory, dtype=torch.uint8).split(self._nbytes))
        self._views = [buffer.numpy().data for buffer in self._buffers]
        if self._stream is not None:
            torch.cuda.set_stream(self._stream)
            for event in self._copied:
                event.record(self._stream)  # PyTorch creates an event when it is first recorded
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.synchronize()
        finally:
            try:
                while self._locked:
                    status = torch.cuda.cudart().cudaHostUnregister(self._locked.pop())
                    _check(int(status))
            finally:
                # The memory is freed with its last view. It is unlocked before that, because its
                # addresses may be reused at once.
                self._buffers, self._views = [], []

    @property
    def closed(self) -> bool:
        """True if the ring holds no memory."""
        return not self._buffers and not self._locked

    def acquire(self) -> memoryview:
        """Return the next buffer, after waiting until the device has copied what it held."""
        if self._next < len(self._locked):
            driver, event = _cuda_driver(), self._copied[self._next]
            if driver is None or driver.cuEventQuery(event.cuda_event) != 0:
                event.synchronize()
        return self._views[self._next]

    def submit(self, segments: list[Segment]) -> None:
        """Start copying the acquired buffer, which holds the segments in order, to the device."""
        buffer = self._buffers[self._next]
        if self._stream is None:
            self._copy_on_cpu(buffer, segments)
        else:
            if self._next == len(self._locked):
                # Not earlier: the first read has created the buffer's pages, in parallel with the
                # other readers.
                status = torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)
                _check(int(status))
                self._locked.append(buffer.data_ptr())
            self._enqueue_copies(buffer, segments, self._stream)
        self._next = (self._next + 1) % self._count

    def synchronize(self) -> None:
        """Wait until everything submitted has been copied."""
        if self._stream is not None:
            self._stream.synchronize()

    def _copy_on_cpu(self, buffer: torch.Tensor, segments: list[Segment]) -> None:
        offset = 0
        for segment in segments:
            part = buffer[offset : offset + segment.nbytes]
            offset += segment.nbytes
            aligned = part if part.data_ptr() % segment.dtype.itemsize == 0 else part.clone()
            segment.view.copy_(aligned.view(segment.dtype))

    def _enqueue_copies(
        self, buffer: torch.Tensor, segments: list[Segment], stream: torch.cuda.Stream
    ) -> None:
        """Enqueue the copies on the stream, and record the buffer's event after them."""
        driver, event, offset = _cuda_driver(), self._copied[self._next], 0
        for segment in segments:
            if driver is not None and segment.destination.dtype == segment.dtype:
                status = driver.cuMemcpyHtoDAsync_v2(
                    segment.address,
                    self._locked[self._next] + offset,
                    segment.nbytes,
                    stream.cuda_stream,
                )
                _check(status)
            else:
                part = buffer[offset : offset + segment.nbytes].to(self._device, non_blocking=True)
                segment.view.copy_(part.view(segment.dtype))
            offset += segment.nbytes
        if driver is None:
            event.record(stream)
        else:
            _check(driver.cuEventRecord(event.cuda_event, stream.cuda_stream))
