"""What of a file is in the page cache.

Linux only; elsewhere nothing is told (`resident_pages` is None) .
"""

import ctypes
import mmap
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

PAGE = mmap.PAGESIZE
CAP_FOWNER = 3  # bit in the capability sets of /proc/self/status


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
