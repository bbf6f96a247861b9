"""Queries which parts of a file are in the OS page cache, with ``mincore``.

Linux only. On other systems nothing is known, so that :func:`resident_pages` returns ``None``.
"""

import ctypes
import mmap
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

PAGE_BYTES = mmap.PAGESIZE
CAP_FOWNER = 3  # bit number in the capability sets of /proc/self/status
_LOW_BIT = bytes(value & 1 for value in range(256))  # mincore reserves the other bits


def resident_pages(fd: int, begin: int, count: int) -> bytes | None:
    """Return one byte per page of [begin, begin + count): 1 if it is in the OS page cache, else 0.

    Args:
        fd: descriptor of the file.
        begin: offset in bytes, a multiple of the page size.
        count: number of bytes.

    Returns:
        The bytes, or ``None`` if the kernel does not tell: without write permission for the file,
        Linux reports all pages as resident (mm/mincore.c, can_do_mincore).
    """
    if count <= 0:
        return b""
    libc = _libc()
    if libc is None or not _residency_is_known(fd):
        return None
    address = libc.mmap(None, count, mmap.PROT_READ, mmap.MAP_SHARED, fd, begin)
    if address == ctypes.c_void_p(-1).value:
        return None
    try:
        found = (ctypes.c_ubyte * (-(-count // PAGE_BYTES)))()
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(count), found) != 0:
            return None
        return bytes(found).translate(_LOW_BIT)
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(count))


def resident_bytes(path: Path) -> int | None:
    """Return the bytes of a file in the OS page cache, or ``None`` if the kernel does not tell.

    A page counts in full, but the result is at most the file's size.

    Raises:
        OSError: if the file cannot be read.
    """
    # Not `os.open`: an interrupt before its result is assigned would leave the file open.
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        pages = resident_pages(file.fileno(), 0, size)
        return None if pages is None else min(size, pages.count(1) * PAGE_BYTES)


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


def _residency_is_known(fd: int) -> bool:
    if os.fstat(fd).st_uid == os.geteuid() or _has_owner_capability():
        return True
    return os.access(f"/proc/self/fd/{fd}", os.W_OK)


@cache
def _has_owner_capability() -> bool:
    """Return whether the process has CAP_FOWNER, which makes it count as every file's owner."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_FOWNER & 1)
    except (OSError, ValueError):
        pass
    return False
