"""A page of memory in which a kernel writes its cell's text and from which the pool reads it.

The text is there the moment the cell has printed it, so none is lost when the kernel is killed or
when its interpreter lock is held for ever, and nothing has to be waited for after the shell reply.
The file behind it is sealed: a kernel can neither shrink nor grow it. Readers do not map it.

Layout: a little-endian u64, the number of bytes used, then UTF-8 text.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

CAPACITY = 1 << 20
_HEADER = struct.Struct("<Q")


def create_page() -> int:
    """A new, sealed page: its file descriptor."""
    fd = os.memfd_create("eightfold-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _HEADER.size + CAPACITY)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def read_page(fd: int) -> str:
    """The text now on the page `fd`."""
    (used,) = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
    data = os.pread(fd, min(used, CAPACITY), _HEADER.size)
    return data.decode("utf-8", "replace")


def clear_page(fd: int) -> None:
    """Forget the page's text."""
    os.pwrite(fd, _HEADER.pack(0), 0)


class PageWriter:
    """The kernel's side: text is taken only while a cell is open."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _HEADER.size + CAPACITY)
        self._used = 0
        self._open = False

    def begin(self) -> None:
        """Open a new cell with an empty page."""
        self._used = 0
        _HEADER.pack_into(self._page, 0, 0)
        self._open = True

    def end(self) -> None:
        """Close the cell; what threads print afterwards is dropped."""
        self._open = False

    def append(self, text: str) -> None:
        """Add `text`; what does not fit on the page is dropped."""
        if not self._open:
            return
        data = text.encode("utf-8", "backslashreplace")[: CAPACITY - self._used]
        start = _HEADER.size + self._used
        self._page[start : start + len(data)] = data
        self._used += len(data)
        _HEADER.pack_into(self._page, 0, self._used)
