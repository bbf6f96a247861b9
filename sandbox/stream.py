"""What cells print, on its two ways: the transcript page, and iopub for any attached client.

stdout and stderr are one stream, so their order is true. Imported by the template only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import threading
import time
from typing import Any

from ipykernel.iostream import OutStream

from .output import Budget
from .transcript import PageWriter

DRAIN_SECONDS = 0.25  # waited at most for what a cell's subprocesses left in the pipe


class Cell:
    """What belongs to the cell now running; one for the process, set by `child.run_kernel`."""

    page: PageWriter
    budget = Budget()
    name = ""
    number = 0
    stream: CellStream
    main_thread = 0
    interrupted = False  # a flood from outside Python stopped this cell


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
        allowed = Cell.budget.take(string)
        if allowed:
            Cell.page.append(allowed)
            super().write(allowed)
        if Cell.budget.exhausted and threading.get_ident() == Cell.main_thread:
            raise Cell.budget.error()
        return len(string)

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
    """Descriptors 1 and 2, as subprocesses and C code write them, read into the cell's stream."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="pipe", daemon=True).start()

    def waiting(self) -> int:
        """Bytes not yet read."""
        return int(struct.unpack("i", fcntl.ioctl(self._read, termios.FIONREAD, b"\0\0\0\0"))[0])

    def _run(self) -> None:
        import codecs
        import select

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        while True:
            poller.poll()
            with self._lock:
                data = os.read(self._read, 65536)
                if not data:
                    return
                Cell.stream.write(decoder.decode(data))
            if Cell.budget.exhausted:
                if not Cell.interrupted:
                    Cell.interrupted = True
                    os.killpg(0, signal.SIGINT)
                time.sleep(0.01)

    def drain(self) -> None:
        """Wait until what the cell's subprocesses wrote has been read."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if not self.waiting():
                    return
            time.sleep(0.0005)


def no_pipe_in(self: Any) -> None:
    """In place of `IOPubThread`'s TCP listener for forked children: they write to descriptor 1."""
    self._pipe_flag = False
