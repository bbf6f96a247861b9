"""What cells print, on its two ways: the transcript page, and iopub for any attached client.

stdout and stderr are one stream, so their order is true. Imported by the template only.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import signal
import termios
import threading
import time
from typing import Any

from ipykernel.iostream import OutStream

from ..text.cell_text import Budget, block
from ..text.shared_text_page import PageWriter

PIPE_SIZE = 1 << 16  # bytes
MOST_READS = 32  # in a row: a program left running may write for ever
_NOTHING = b"\0\0\0\0"


class Cell:
    """What belongs to the cell now running; one for the process, set by `child.run_kernel`."""

    page: PageWriter
    budget = Budget()
    name = ""
    number = 0
    stream: CellStream
    main_thread = 0
    interrupted = False  # a flood from outside Python stopped this cell
    reader: PipeReader

    @classmethod
    def show(cls, text: str) -> None:
        """Add a piece of its own after all that was written before it."""
        cls.reader.drain()
        cls.page.append(block(text))


class CellStream(OutStream):
    """stdout and stderr of cells, within the cell's budget."""

    def __init__(self, session: Any, pub_thread: Any, name: str, **_: Any) -> None:
        super().__init__(session, pub_thread, "stdout", watchfd=False)

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if os.getpid() != self._master_pid:
            data = string.encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(1, data) :]
            return len(string)
        Cell.reader.drain()
        self.add(string)
        if Cell.budget.exhausted and threading.get_ident() == Cell.main_thread:
            raise Cell.budget.error()
        return len(string)

    def add(self, text: str) -> None:
        """Take as much of `text` as the budget allows."""
        allowed = Cell.budget.take(text)
        if allowed:
            Cell.page.append(allowed)
            super().write(allowed)

    def fileno(self) -> int:
        return 1

    def flush(self) -> None:
        """Nothing: a timer sends what was written; a message for each line would be slow."""

    def publish(self) -> None:
        """Send what was written; for those who send a message that must come after it."""
        # A forked child has no I/O thread, and nothing here that is its own.
        if os.getpid() == self._master_pid:
            self._flush()

    def _flush(self) -> None:
        # The I/O thread sends messages in the order in which they are queued. Whoever flushes,
        # cell or timer, queues under the lock: nothing is then overtaken by the cell's "idle".
        with self._buffer_lock:
            super()._flush()


class PipeReader:
    """Descriptors 1 and 2, as subprocesses and C code write them, read into the cell's stream.

    A thread reads while the cell runs other code. Whatever the cell then writes or shows itself
    comes after what is in the pipe by that time: `drain`.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.RLock()  # a signal handler may print within `drain`
        threading.Thread(target=self._run, name="pipe", daemon=True).start()

    def _waiting(self) -> bool:
        """Whether there is anything to read; False too where a cell closed the pipe."""
        try:
            return fcntl.ioctl(self._read, termios.FIONREAD, _NOTHING) != _NOTHING
        except OSError:
            return False

    def drain(self) -> None:
        """Take what is in the pipe."""
        with self._lock:
            for _ in range(MOST_READS):
                if not self._waiting():
                    return
                Cell.stream.add(self._decoder.decode(os.read(self._read, PIPE_SIZE)))

    def finish(self) -> None:
        """Take what is in the pipe at the end of a cell, a half character too."""
        with self._lock:
            self.drain()
            Cell.stream.add(self._decoder.decode(b"", final=True))

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        while True:
            ((_, events),) = poller.poll()
            self.drain()
            if not events & select.POLLIN:  # nobody can write any more
                return
            if Cell.budget.exhausted:
                if not Cell.interrupted:
                    Cell.interrupted = True
                    os.killpg(0, signal.SIGINT)
                time.sleep(0.01)


def no_pipe_in(self: Any) -> None:
    """In place of `IOPubThread`'s TCP listener for forked children: they write to descriptor 1."""
    self._pipe_flag = False
