"""What of a file is in the page cache, and how much the host's memory can still take.

Linux only; elsewhere nothing is told (`resident_pages` is None) and nothing bounds.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

PAGE = mmap.PAGESIZE
CAP_FOWNER = 3  # bit in the capability sets of /proc/self/status
CGROUP = Path("/sys/fs/cgroup")


def resident_pages(fd: int, begin: int, count: int) -> bytes | None:
    """One byte per page of [begin, begin + count): 1 where it is in the page cache.

    begin: a multiple of the page size. ``None`` where the kernel does not tell: to who could not
    write the file, Linux reports every page as resident (mm/mincore.c, can_do_mincore).
    """
    if count <= 0:
        return b""
    libc = _libc()
    if libc is None or not _told(fd):
        return None
    address = libc.mmap(None, count, mmap.PROT_READ, mmap.MAP_SHARED, fd, begin)
    if address == ctypes.c_void_p(-1).value:
        return None
    try:
        found = (ctypes.c_ubyte * (-(-count // PAGE)))()
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(count), found) != 0:
            return None
        return bytes(found).translate(_LOW_BIT)
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(count))


def resident_bytes(path: Path) -> int | None:
    """Bytes of a file in the page cache, whole pages counted; ``None`` where that is not told.

    Raises:
        OSError: where the file cannot be read.
    """
    # Not by `os.open`: an interrupt before its number is noted would leave the file open.
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        pages = resident_pages(file.fileno(), 0, size)
        return None if pages is None else min(size, pages.count(1) * PAGE)


def available_memory() -> int | None:
    """Bytes that can be had without swapping, page cache that would be dropped included.

    The least of what the machine and the process' control group allow.
    """
    found = [_machine(), *(_group(*group) for group in _groups())]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _groups() -> Iterator[tuple[Path, str, str, tuple[str, ...]]]:
    """The control groups that may bound this process: its own, and those around it."""
    kinds = ("active_file", "inactive_file")
    v2 = ("memory.max", "memory.current", kinds)
    total = tuple(f"total_{kind}" for kind in kinds)
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", total)
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    # In a container the paths may be the host's, and its own group is what is mounted.
    for line in dict.fromkeys([*lines, "0::/", "0:memory:/"]):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, names = (CGROUP / "memory", v1) if controllers else (CGROUP, v2)
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield mount / group.relative_to("/"), *names


def _group(folder: Path, limit: str, usage: str, caches: tuple[str, ...]) -> int | None:
    """What a control group allows still; ``None`` where there is none or it has no limit."""
    try:
        bound = (folder / limit).read_text().strip()
        if bound == "max":
            return None
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(bound) - used + sum(int(stat.get(name, 0)) for name in caches))
    except (OSError, ValueError):
        return None


_LOW_BIT = bytes(value & 1 for value in range(256))  # the other bits are reserved


@cache
def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    ]
    return libc


def _told(fd: int) -> bool:
    if os.fstat(fd).st_uid == os.geteuid() or _owner_of_all():
        return True
    return os.access(f"/proc/self/fd/{fd}", os.W_OK)


@cache
def _owner_of_all() -> bool:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_FOWNER & 1)
    except (OSError, ValueError):
        pass
    return False
