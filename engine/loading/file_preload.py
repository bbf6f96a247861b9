"""Reads the files of a folder once, so that they are in the operating system's page cache.

Imports neither torch nor transformers: it runs while those load. Beside a loader it reads no byte
twice from the disk: both read through the page cache, and what is resident is skipped here.
"""

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eightfold.common.host_memory import available_memory

from ..model_errors import CheckpointError
from ..worker_thread import WorkerThread
from .os_page_cache import PAGE, resident_bytes, resident_pages
from .safetensors_headers import index_order

BLOCK_BYTES = 8 << 20  # of one read, and of one look at what is resident


@dataclass(frozen=True, slots=True)
class PreloadConfig:
    """How to read.

    Args:
        threads: that read at once.
        chunk_bytes: that a thread takes at a time, in a row.
        reserve_bytes: of memory that are left alone.
    """

    threads: int = 8
    chunk_bytes: int = 1 << 30
    reserve_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 256:
            raise ValueError(f"threads must be from 1 to 256, not {self.threads}")
        if self.chunk_bytes < PAGE or self.chunk_bytes % PAGE:
            raise ValueError(f"chunk_bytes must be a multiple of {PAGE}, not {self.chunk_bytes}")
        if self.reserve_bytes < 0:
            raise ValueError(f"reserve_bytes must not be negative, not {self.reserve_bytes}")


@dataclass(frozen=True, slots=True)
class File:
    """A file to read, and what of it was resident at the start (``None``: not told)."""

    path: Path
    size: int
    resident: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes.

    done: passed, be it read or found resident. warm: resident before the start, not more than
    ``done``; what else was found resident, the kernel had read ahead. read: read here.
    """

    done: int
    warm: int
    read: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second that came into the page cache."""
        return max(self.read, self.done - self.warm) / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate; ``None`` where it is too early to say."""
        if self.seconds < 0.2 or not self.rate:
            return None
        return (self.total - self.done) / self.rate


@dataclass(frozen=True, slots=True)
class Report:
    """What a preload did. Sizes in bytes.

    resident_before, resident_after: in the page cache; ``None`` where the kernel does not tell.
    read: bytes read. rate: bytes a second that came into the page cache.
    unreadable: a sentence part for each file that could not be read.
    ending: "done", "memory" (more would not have stayed), or "stopped".
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


def files_of(folder: Path) -> tuple[list[File], list[str]]:
    """Every regular file below a folder once, links followed; and what could not be looked at.

    The largest come first; the shards of a checkpoint are one unit, in index order.
    """
    faults: list[str] = []
    found: list[File] = []
    for path, size in _walk(folder, faults):
        try:
            found.append(File(path, size, resident_bytes(path)))
        except OSError as error:
            faults.append(f"{path} ({error.strerror})")
    unit_of, rank = _shards({file.path.parent for file in found})
    real = {file.path: os.path.realpath(file.path) for file in found}
    sizes: dict[Path, int] = {}
    for file in found:
        unit = unit_of.get(real[file.path], file.path)
        sizes[unit] = sizes.get(unit, 0) + file.size

    def place(file: File) -> tuple[int, Path, int]:
        unit = unit_of.get(real[file.path], file.path)
        return -sizes[unit], unit, rank.get(real[file.path], 0)

    return sorted(found, key=place), faults


def _check_folder(folder: str | Path) -> None:
    if not str(folder):
        raise CheckpointError("the folder's name is empty; give the folder to read")
    try:
        mode = os.stat(folder).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"there is no folder {folder}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder} cannot be looked at: {reason}") from error
    if not stat.S_ISDIR(mode):
        raise CheckpointError(f"{folder} is no folder; give the one that it is in")


def _shards(folders: set[Path]) -> tuple[dict[str, Path], dict[str, int]]:
    """Of every sharded checkpoint's files: the unit (its folder) and the place within it.

    By their real paths: in a download cache a folder has but links to them.
    """
    unit: dict[str, Path] = {}
    rank: dict[str, int] = {}
    for folder in folders:
        try:
            files = [os.path.realpath(file) for file in index_order(folder)]
        except (OSError, ValueError):
            continue  # a broken index is the loader's to report
        unit |= dict.fromkeys(files, folder)
        rank |= {file: at for at, file in enumerate(files)}
    return unit, rank


def _walk(root: Path, faults: list[str]) -> Iterator[tuple[Path, int]]:
    """Files and their sizes."""
    paths = [root]
    seen: set[tuple[int, int]] = set()
    while paths:
        path = paths.pop()
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            if stat.S_ISDIR(status.st_mode):
                paths += [path / name for name in sorted(os.listdir(path), reverse=True)]
            # Opening a pipe or a device could wait for ever.
            elif stat.S_ISREG(status.st_mode) and status.st_size:
                yield path, status.st_size
        except OSError as error:
            faults.append(f"{path} ({error.strerror})")


class Preload:
    """Reads a folder's files on threads of its own, from the moment it is made.

    Raises:
        CheckpointError: where there is no such folder, or it cannot be looked at.
        ModelError: where the system has no threads to give.
    """

    def __init__(self, folder: str | Path, config: PreloadConfig | None = None) -> None:
        self.config = config = config or PreloadConfig()
        _check_folder(folder)
        self._began = time.monotonic()
        self.files, self._faults = files_of(Path(folder))
        self.total = sum(file.size for file in self.files)
        self._warm = sum(file.resident or 0 for file in self.files)
        self._lock = threading.Lock()
        self._read = self._skipped = 0
        self._ending = "done"
        self._stop = threading.Event()
        # Small folders are cut finer, so that every thread has its part.
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
            WorkerThread(target=self._main, name=f"preload-{index}") for index in range(count)
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
        """End early, after the blocks that are being read; safe to call twice."""
        with self._lock:
            if any(thread.is_alive() for thread in self._threads) and not self._stop.is_set():
                self._ending = "stopped"
        self._stop.set()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; whether it has come."""
        until = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def progress(self) -> Progress:
        with self._lock:
            read, done = self._read, self._read + self._skipped
        seconds = (self._ended or time.monotonic()) - self._began
        return Progress(done, min(done, self._warm), read, self.total, seconds)

    def report(self) -> Report:
        """What was done, once all threads have ended.

        Raises:
            RuntimeError: where they have not.
        """
        if not self.wait(0):
            raise RuntimeError("the preload is still running")
        progress = self.progress()
        before = [file.resident for file in self.files]
        after = [_resident_or_none(file) for file in self.files]
        return Report(
            files=len(self.files),
            total=self.total,
            resident_before=_sum(before),
            resident_after=_sum(after),
            read=progress.read,
            seconds=progress.seconds,
            rate=progress.rate,
            unreadable=tuple(sorted(set(self._faults))),
            ending=self._ending,
        )

    # ---- on the threads

    def _main(self) -> None:
        buffer = bytearray(min(BLOCK_BYTES, self.config.chunk_bytes))
        try:
            while not self._stop.is_set():
                try:
                    file, begin, end = self._chunks.popleft()
                except IndexError:
                    return
                self._chunk(file, begin, end, buffer)
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._ended = time.monotonic()

    def _chunk(self, file: File, begin: int, end: int, buffer: bytearray) -> None:
        try:
            fd = os.open(file.path, os.O_RDONLY)
            try:
                for at in range(begin, end, len(buffer)):
                    if self._stop.is_set():
                        return
                    self._block(fd, at, min(len(buffer), end - at), buffer)
            finally:
                os.close(fd)
        except OSError as error:
            with self._lock:
                self._faults.append(f"{file.path} ({error.strerror})")

    def _block(self, fd: int, begin: int, count: int, buffer: bytearray) -> None:
        pages = resident_pages(fd, begin, count)
        if pages is not None and 0 not in pages:
            with self._lock:
                self._skipped += count
            return
        if not self._fits(count):
            with self._lock:
                if not self._stop.is_set():
                    self._ending = "memory"
            self._stop.set()
            return
        view = memoryview(buffer)[:count]
        while view and not self._stop.is_set():
            got = os.preadv(fd, [view], begin)
            if not got:
                raise OSError(0, "the file became shorter")
            view, begin = view[got:], begin + got
            with self._lock:
                self._read += got

    def _fits(self, count: int) -> bool:
        """Whether what is resident of these files stays so when ``count`` bytes more come in.

        Page cache counts as available, these files' as well: they must fit into what is available.
        """
        available = available_memory()
        if available is None:
            return True
        with self._lock:
            held = self._read + self._skipped
        in_flight = count * self.config.threads
        return held + in_flight + self.config.reserve_bytes <= available


def _resident_or_none(file: File) -> int | None:
    try:
        found = resident_bytes(file.path)
    except OSError:
        return 0
    return None if found is None else min(found, file.size)  # it may have grown


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
