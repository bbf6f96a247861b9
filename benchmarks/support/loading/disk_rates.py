"""Measures the rates at which a disk is written and read."""

from __future__ import annotations

import mmap
import os
import threading
import time
from pathlib import Path

MIB = 1 << 20


def write_rate(file: Path) -> float:
    """Return the bytes per second of a short write that reaches the disk; the file is removed."""
    block = os.urandom(8 * MIB)
    began = time.monotonic()
    with file.open("wb") as stream:
        for _ in range(32):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    file.unlink()
    return 32 * len(block) / (time.monotonic() - began)


def read_rate(files: list[Path], threads: int, direct: bool = False) -> float:
    """Return the bytes per second at which threads read files, in blocks of 16 MiB in order.

    Args:
        files: the files, in the order in which they are read.
        threads: number of threads.
        direct: bypass the OS page cache.
    """
    block = 16 * MIB
    jobs = iter([(f, offset) for f in files for offset in range(0, f.stat().st_size, block)])
    lock, total = threading.Lock(), [0]

    def read_blocks() -> None:
        buffer = mmap.mmap(-1, block)
        fds = {f: os.open(f, os.O_RDONLY | (os.O_DIRECT if direct else 0)) for f in files}
        while True:
            with lock:
                job = next(jobs, None)
            if job is None:
                break
            got = os.preadv(fds[job[0]], [buffer], job[1])
            with lock:
                total[0] += got
        for fd in fds.values():
            os.close(fd)

    readers = [threading.Thread(target=read_blocks) for _ in range(threads)]
    began = time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return total[0] / (time.monotonic() - began)
