"""Reads a folder's files once, so that they are in the OS page cache.

Imports neither torch nor transformers, because it runs while those are imported. A loader that runs
at the same time reads no byte from the disk a second time: both read through the OS page cache, and
the preload skips what is already resident.
"""

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from eightfold.common.host_memory import available_memory

from ..worker_thread import WorkerThread
from .folder_listing import ListedFile, check_folder, leave_out_unread, list_files
from .os_page_cache import PAGE_BYTES, resident_bytes, resident_pages

BLOCK_BYTES = 8 << 20  # of one read, and of one residency check


@dataclass(frozen=True, slots=True)
class PreloadConfig:
    """Settings of a preload.

    Args:
        threads: number of threads that read, from 1 to 256.
        chunk_bytes: bytes that a thread reads in sequence before it takes its next chunk; a
            multiple of the page size.
        reserve_bytes: bytes of available memory to leave unused.
    """

    threads: int = 8
    chunk_bytes: int = 1 << 30
    reserve_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 256:
            raise ValueError(f"threads must be from 1 to 256, not {self.threads}.")
        if self.chunk_bytes < PAGE_BYTES or self.chunk_bytes % PAGE_BYTES:
            raise ValueError(
                f"chunk_bytes must be a multiple of {PAGE_BYTES}, not {self.chunk_bytes}."
            )
        if self.reserve_bytes < 0:
            raise ValueError(f"reserve_bytes must not be negative, not {self.reserve_bytes}.")


@dataclass(frozen=True, slots=True)
class PreloadProgress:
    """Progress of a preload, in bytes.

    Args:
        done: bytes passed, whether read or found resident.
        warm: bytes that were resident before the start, at most ``done``. Any others that were
            found resident had been read ahead by the kernel.
        read: bytes read by the preload.
        total: bytes of all files.
        seconds: time since the start.
    """

    done: int
    warm: int
    read: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second that entered the OS page cache."""
        return max(self.read, self.done - self.warm) / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class PreloadReport:
    """Result of a preload. Sizes are in bytes.

    Args:
        files: number of files.
        total: bytes of all files.
        resident_before: bytes in the OS page cache at the start; ``None`` if the kernel does not
            tell.
        resident_after: the same at the end.
        read: bytes read by the preload.
        seconds: time from the start to the end.
        rate: bytes per second that entered the OS page cache.
        unreadable: a description of each file that could not be read.
        ending: "done", "memory" (more would not have stayed in memory), or "stopped".
        left_out: bytes of weights beside a checkpoint that no loader reads.
    """

    files: int
    total: int
    resident_before: int | None
    resident_after: int | None
    read: int
    seconds: float
    rate: float
    unreadable: tuple[str, ...]
    ending: str
    left_out: int


class Preload:
    """Reads a folder's files on its own threads, starting when it is created.

    Args:
        folder: the folder; files in folders below it are read too. Beside a checkpoint, weights
            that it does not name are left out.
        config: see :class:`PreloadConfig`.

    Raises:
        CheckpointError: if the folder does not exist or cannot be accessed.
        ModelError: if the system cannot create the threads.
    """

    def __init__(self, folder: str | Path, config: PreloadConfig | None = None) -> None:
        self.config = config = config or PreloadConfig()
        check_folder(folder)
        self._began = time.monotonic()
        found, self._faults = list_files(Path(folder))
        self.files, self._unread = leave_out_unread(found)
        self.total = sum(file.size for file in self.files)
        self._warm = sum(file.resident or 0 for file in self.files)
        self._lock = threading.Lock()
        self._read = self._skipped = 0
        self._ending = "done"
        self._stop = threading.Event()
        # A small folder is divided more finely, so that every thread has a share.
        share = -(-self.total // config.threads // BLOCK_BYTES) * BLOCK_BYTES
        chunk = min(config.chunk_bytes, max(share, BLOCK_BYTES))
        self._chunks = deque(
            (file, begin, min(begin + chunk, file.size))
            for file in self.files
            for begin in range(0, file.size, chunk)
        )
        count = min(config.threads, len(self._chunks))
        self._running = count
        self._ended: float | None = None if count else time.monotonic()
        self._threads = [
            WorkerThread(target=self._run_thread, name=f"preload-{index}") for index in range(count)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stop.set()
            self.wait()
            raise

    def __enter__(self) -> "Preload":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End early, after the blocks that are being read. Calling it again is harmless."""
        with self._lock:
            if any(thread.is_alive() for thread in self._threads) and not self._stop.is_set():
                self._ending = "stopped"
        self._stop.set()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds for the end, and return whether it has come."""
        until = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def progress(self) -> PreloadProgress:
        """Return the progress so far."""
        with self._lock:
            read, done = self._read, self._read + self._skipped
        seconds = (self._ended or time.monotonic()) - self._began
        return PreloadProgress(done, min(done, self._warm), read, self.total, seconds)

    def report(self) -> PreloadReport:
        """Return the result, once all threads have finished.

        Raises:
            RuntimeError: if a thread is still running.
        """
        if not self.wait(0):
            raise RuntimeError("The preload is still running; call wait() or stop() first.")
        progress = self.progress()
        before = [file.resident for file in self.files]
        after = [_resident_now(file) for file in self.files]
        return PreloadReport(
            files=len(self.files),
            total=self.total,
            resident_before=_sum_or_none(before),
            resident_after=_sum_or_none(after),
            read=progress.read,
            seconds=progress.seconds,
            rate=progress.rate,
            unreadable=tuple(sorted(set(self._faults))),
            ending=self._ending,
            left_out=sum(file.size for file in self._unread),
        )

    # ---- on the threads

    def _run_thread(self) -> None:
        buffer = bytearray(min(BLOCK_BYTES, self.config.chunk_bytes))
        try:
            while not self._stop.is_set():
                try:
                    file, begin, end = self._chunks.popleft()
                except IndexError:
                    return
                self._read_chunk(file, begin, end, buffer)
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._ended = time.monotonic()

    def _read_chunk(self, file: ListedFile, begin: int, end: int, buffer: bytearray) -> None:
        try:
            fd = os.open(file.path, os.O_RDONLY)
            try:
                for offset in range(begin, end, len(buffer)):
                    if self._stop.is_set():
                        return
                    self._read_block(fd, offset, min(len(buffer), end - offset), buffer)
            finally:
                os.close(fd)
        except OSError as error:
            with self._lock:
                self._faults.append(f"{file.path} ({error.strerror})")

    def _read_block(self, fd: int, offset: int, count: int, buffer: bytearray) -> None:
        pages = resident_pages(fd, offset, count)
        if pages is not None and 0 not in pages:
            with self._lock:
                self._skipped += count
            return
        if not self._fits_in_memory(count):
            with self._lock:
                if not self._stop.is_set():
                    self._ending = "memory"
            self._stop.set()
            return
        view = memoryview(buffer)[:count]
        while view and not self._stop.is_set():
            got = os.preadv(fd, [view], offset)
            if not got:
                raise OSError(0, "the file became shorter")
            view, offset = view[got:], offset + got
            with self._lock:
                self._read += got

    def _fits_in_memory(self, count: int) -> bool:
        """Return whether these files stay resident when ``count`` more bytes come in.

        The OS page cache counts as available memory, these files' share of it included. So all that
        has been passed, and all that the threads are reading, must fit into what is available.
        """
        available = available_memory()
        if available is None:
            return True
        with self._lock:
            passed = self._read + self._skipped
        in_flight = count * self.config.threads
        return passed + in_flight + self.config.reserve_bytes <= available


def _resident_now(file: ListedFile) -> int | None:
    try:
        resident = resident_bytes(file.path)
    except OSError:
        return 0
    return None if resident is None else min(resident, file.size)  # it may have grown


def _sum_or_none(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
