"""The common base of the streams of cells, in kernels and in `inprocess_cell.run_cell`."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable
from typing import Any

from .cell_text import OutputBudget


class ByteView(io.BufferedIOBase):
    """``sys.stdout.buffer``: decodes the bytes that are written and passes them on as text.

    Args:
        write: called with the text.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> int:
        """Write bytes; an incomplete character waits for its rest."""
        data = bytes(data)
        text = self._decoder.decode(data)
        if text:
            self._write(text)
        return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing: later text must not be lost."""


class LastingStream:
    """A text stream that cells can neither close nor detach, as nobody would read what follows."""

    closed = False
    write: Callable[[str], int]

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`, without adding line ends."""
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Do nothing: later text must not be lost."""

    def detach(self) -> ByteView:
        """Return the binary stream, and keep this one usable."""
        return self.buffer

    @property
    def buffer(self) -> ByteView:
        """The binary stream beneath."""
        view: ByteView | None = self.__dict__.get("_bytes")
        if view is None:
            view = self.__dict__["_bytes"] = ByteView(self.write)
        return view

    def reconfigure(self, **_: object) -> None:
        """Do nothing: text is unbuffered UTF-8 in any case."""

    def isatty(self) -> bool:
        """Return False."""
        return False

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False."""
        return False


class PrintStream(LastingStream):
    """A write-only text stream within a budget.

    Args:
        budget: what the cell may print.
        emit: called with the text that may be shown.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, budget: OutputBudget, emit: Callable[[str], None]) -> None:
        self.budget = budget
        self.emit = emit

    def write(self, text: str) -> int:
        """Write text; raise `OutputLimit` once the budget is exhausted."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        allowed = self.budget.charge_printed(text)
        if allowed:
            self.emit(allowed)
        if self.budget.exhausted:
            raise self.budget.error()
        return len(text)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def fileno(self) -> int:
        """Raise `OSError`, as a stream without a descriptor must."""
        raise OSError("this stream has no descriptor")
