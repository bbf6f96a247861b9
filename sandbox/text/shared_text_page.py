"""The shared text page: memory to which a kernel writes its cell's text, and which the pool reads.

The text is there as soon as the cell has printed it. None is lost if the kernel is killed or if C
code holds the interpreter lock for ever, and nothing need be waited for after the shell reply. The
file behind the page is sealed, so a kernel can neither shrink nor grow it. Readers do not map it.

Layout: the number of bytes used, as a little-endian u64, then that many bytes of UTF-8 text.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

# Bytes of text: what a cell may print and display, with at most four bytes for a character.
CAPACITY = 640 << 10
MAX_CHARACTERS = CAPACITY // 4
_HEADER = struct.Struct("<Q")


def create_page() -> int:
    """Create an empty, sealed page and return its file descriptor."""
    fd = os.memfd_create("eightfold-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _HEADER.size + CAPACITY)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def read_page(fd: int) -> str:
    """Return the text on the page `fd`, of which no kernel fills more than `MAX_CHARACTERS`."""
    (used,) = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
    data = os.pread(fd, min(used, CAPACITY), _HEADER.size)
    return data.decode("utf-8", "replace")[:MAX_CHARACTERS]


def clear_page(fd: int) -> None:
    """Empty the page `fd`."""
    os.pwrite(fd, _HEADER.pack(0), 0)


class PageWriter:
    """The kernel's side of a page, which takes text only while a cell runs.

    Args:
        fd: the page's file descriptor; it can be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _HEADER.size + CAPACITY)
        self._used = 0
        self._open = False

    def begin(self) -> None:
        """Begin a cell with an empty page."""
        self._used = 0
        _HEADER.pack_into(self._page, 0, 0)
        self._open = True

    def end(self) -> None:
        """End the cell; what threads print afterwards is dropped."""
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
