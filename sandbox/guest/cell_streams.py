"""The output of cells, on its two ways: to the shared text page, and to iopub for other clients.

stdout and stderr are one stream, which keeps the true order of what is written to them. Only the
template imports this module.

Module state: the attributes of the class `CurrentCell`. IPython and ipykernel create the streams
and display hooks themselves, so that these cannot be handed the state of the cell that they serve;
a kernel process runs one cell at a time. `kernel_main` sets the attributes after the fork.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import termios
import threading
import time
from typing import Any

from ipykernel.iostream import OutStream

from ..text.cell_text import OutputBudget, block
from ..text.print_stream import LastingStream
from ..text.shared_text_page import PageWriter

PIPE_SIZE = 1 << 16  # bytes read at a time
MAX_READS = 32  # reads in a row: a program that was left running may write for ever
_NO_BYTES = b"\0\0\0\0"
_UNBUFFERED = 2  # _IONBF of stdio.h


class CurrentCell:
    """State of the cell that this process runs, or ran last.

    Attributes:
        page: the shared text page.
        budget: what the cell may print.
        name: the file name under which the cell is compiled.
        number: number of cells so far.
        stream: the cells' stdout and stderr.
        reader: reads what is written to descriptors 1 and 2.
        main_thread: identifier of the thread that runs cells.
        flooded: True if output from outside Python has exhausted this cell's budget.
        forked: True in a process that a cell has forked, which writes to descriptor 1 only.
    """

    page: PageWriter
    budget = OutputBudget()
    name = ""
    number = 0
    stream: CellStream
    reader: PipeReader
    main_thread = 0
    flooded = False
    forked = False

    @classmethod
    def show(cls, text: str) -> None:
        """Add a block of text after all that was written before it."""
        if cls.forked:
            write_all(f"{text}\n")
            return
        cls.reader.drain()
        cls.page.append(block(text))

    @classmethod
    def enter_fork(cls) -> None:
        """Leave the page and the pipe to the parent; runs in each child that a cell forks."""
        cls.forked = True
        cls.page.end()


def write_all(text: str) -> None:
    """Write text to descriptor 1."""
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(1, data) :]


def unbuffer_c_output() -> None:
    """Let C code write to descriptor 1 at once: a buffer would be lost, or late in the text."""
    libc = ctypes.CDLL(None)
    with contextlib.suppress(ValueError):  # another C library than glibc
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _UNBUFFERED, ctypes.c_size_t(0))


class CellStream(LastingStream, OutStream):
    """stdout and stderr of cells, within the cell's budget."""

    def __init__(self, session: Any, pub_thread: Any, name: str, **_: Any) -> None:
        super().__init__(session, pub_thread, "stdout", watchfd=False)

    def write(self, string: str) -> int:
        """Write text; raise `OutputLimit` in the cell's own thread once the budget is spent."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if CurrentCell.forked:
            write_all(string)
            return len(string)
        CurrentCell.reader.drain()
        self.emit(string)
        exhausted = CurrentCell.budget.exhausted
        if exhausted and threading.get_ident() == CurrentCell.main_thread:
            raise CurrentCell.budget.error()
        return len(string)

    def emit(self, text: str) -> None:
        """Write as much of `text` as the budget allows."""
        allowed = CurrentCell.budget.charge_printed(text)
        if allowed:
            CurrentCell.page.append(allowed)
            OutStream.write(self, allowed)

    def fileno(self) -> int:
        """Return the descriptor of stdout."""
        return 1

    def flush(self) -> None:
        """Do nothing: a timer sends what was written, as a message for each line would be slow."""

    def publish(self) -> None:
        """Send what was written, before a message that must come after it."""
        # A forked child has no I/O thread, and the buffer is not its own.
        if not CurrentCell.forked:
            self._flush()

    def _flush(self) -> None:
        # The I/O thread sends messages in the order in which they are queued. The cell and the
        # timer both queue under this lock, so the cell's "idle" cannot overtake its output.
        with self._buffer_lock:
            super()._flush()


class PipeReader:
    """Reads what subprocesses and C code write to descriptors 1 and 2 into the cell's stream.

    A thread reads while the cell runs other code. Before the cell itself writes or shows anything,
    `drain` takes what is in the pipe, so that the order is kept.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.RLock()  # reentrant: a signal handler may print during `drain`
        self._interrupts = False  # True while a flood is to interrupt the cell
        threading.Thread(target=self._run, name="pipe", daemon=True).start()

    def _has_data(self) -> bool:
        """Return whether there is anything to read; False also if a cell has closed the pipe."""
        try:
            return fcntl.ioctl(self._read, termios.FIONREAD, _NO_BYTES) != _NO_BYTES
        except OSError:
            return False

    def drain(self) -> None:
        """Take what is in the pipe."""
        with self._lock:
            for _ in range(MAX_READS):
                if not self._has_data():
                    return
                data = os.read(self._read, PIPE_SIZE)
                CurrentCell.stream.emit(self._decoder.decode(data))
                CurrentCell.flooded |= CurrentCell.budget.exhausted

    def begin(self) -> None:
        """Begin a cell with its whole budget; a flood interrupts it until `finish`."""
        with self._lock:
            CurrentCell.budget.reset()
            CurrentCell.flooded = False
            self._interrupts = True

    def finish(self) -> None:
        """Take what is in the pipe at the end of a cell, with an incomplete last character."""
        with self._lock:
            self._interrupts = False  # an interrupt from here on would be the next cell's
            self.drain()
            CurrentCell.stream.emit(self._decoder.decode(b"", final=True))

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        while True:
            ((_, events),) = poller.poll()
            with self._lock:
                self.drain()
                if CurrentCell.flooded and self._interrupts:
                    self._interrupts = False
                    os.killpg(0, signal.SIGINT)
            if not events & select.POLLIN:  # no process can write any more
                return
            if CurrentCell.budget.exhausted:
                time.sleep(0.01)


def skip_pipe_in(self: Any) -> None:
    """Replace `IOPubThread`'s TCP listener for forked children, which write to descriptor 1."""
    self._pipe_flag = False
