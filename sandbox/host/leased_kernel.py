"""A leased kernel: cells, their time limit, and what happens when one does not end."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eightfold.common.valid_text import escape_surrogates

from ..sandbox_errors import SandboxError
from ..text import cell_text
from ..text.preamble import SOFT_RESET
from .jupyter_messages import execute_request
from .process_handles import KernelProcess

if TYPE_CHECKING:
    from .kernel_pool import KernelPool

Status = Literal["ok", "error", "timeout", "died"]
_INTERRUPTED = ("KeyboardInterrupt", "CancelledError")
KILL_SECONDS = 0.1  # waited at most for a killed process to be gone
PROBE_SECONDS = 0.3  # beyond the grace for the answer after which a kernel is trusted again
RESET_SECONDS = 3.0  # a kept kernel must be clean within this, or it is replaced
MAX_CODE = 1 << 20  # characters
_STOPS = ("interrupt", "kill")


@dataclass(frozen=True)
class Execution:
    """What came of one cell."""

    status: Status
    text: str  # what the model reads
    seconds: float  # wall-clock time from the request to the answer
    error: str | None = None  # name of the exception that ended the cell
    killed: bool = False  # the process was lost, and with it all variables
    cancelled: bool = False  # stopped by interrupt() or kill(), not by its time limit


class Kernel(AbstractContextManager["Kernel"]):
    """A kernel of one lease. `execute` is for one thread at a time, the rest for any."""

    def __init__(self, pool: KernelPool, process: KernelProcess) -> None:
        self._pool = pool
        self._process: KernelProcess | None = process
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._busy = threading.Lock()
        self._state = threading.Lock()  # guards the wake pipe, `_stop` and the two flags
        self._leaving = False  # release() has begun: no further cell
        self._released = False
        self._stop: str | None = None  # "interrupt" or "kill", asked for by another thread
        self._cells: list[tuple[str, float]] = []  # successful ones, for the replay
        self._replay_due = False

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def pid(self) -> int | None:
        """Process id of the kernel; None after it was killed and before the next cell."""
        process = self._process
        return process.pid if process else None

    @property
    def connection_file(self) -> Path | None:
        """Jupyter connection file of the running process."""
        process = self._process
        return process.connection_file if process else None

    def execute(self, code: str, timeout: float | None = None) -> Execution:
        """Run `code` for at most `timeout` seconds (the pool's where None) and tell what came.

        Never raises for anything the code does. After a cell was killed the next one runs in a
        fresh process. Raises `SandboxError` once the kernel is released or where the pool can make
        no more kernels, `RuntimeError` where another thread is executing.
        """
        limit = self._pool.config.timeout if timeout is None else timeout
        if not 0 < limit < math.inf:
            raise ValueError(f"timeout must be a positive number of seconds, not {limit}")
        if not self._busy.acquire(blocking=False):
            if self._leaving:
                raise SandboxError("this kernel has been released")
            raise RuntimeError("this kernel is executing in another thread")
        try:
            return self._execute(code, limit)
        finally:
            with self._state:  # what is asked from here on is for no cell
                self._stop = None
                self._busy.release()

    def interrupt(self) -> None:
        """Stop the cell now running, if any; its execute() returns within the grace period."""
        self._ask("interrupt")

    def kill(self) -> None:
        """Stop the cell now running, if any, at once: its process is killed."""
        self._ask("kill")

    def _ask(self, what: str) -> None:
        with self._state:
            if not self._released and self._busy.locked() and self._stop != "kill":
                self._stop = what
                with contextlib.suppress(BlockingIOError):  # full: it wakes already
                    os.write(self._wake_write, b"x")

    def release(self) -> None:
        """Give the kernel back: it is thrown away. Safe to call twice and while a cell runs.

        With reset="soft" a kernel that no cell has spoiled goes on to the next lease.
        """
        with self._state:
            self._leaving = True
        self.kill()
        with self._busy:
            with self._state:
                if self._released:
                    return
                self._released = True
            process, self._process = self._process, None
            kept = process is not None and self._pool.keeps() and self._reset(process)
            self._pool._give_back(self, process, kept=kept)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _execute(self, code: str, limit: float) -> Execution:
        if self._leaving:
            raise SandboxError("this kernel has been released")
        if len(code) > MAX_CODE:
            return Execution("error", f"ValueError: a cell may have {MAX_CODE} characters", 0.0)
        note = ""
        process = self._process
        if process is None or not process.alive():
            lost = process is not None
            self._renew()
            note = self._replay()
            process = self._process
            assert process is not None
            if lost and not note:
                note = cell_text.block("The Python process had ended. All variables are gone.")
        started = time.monotonic()
        process.clear_text()
        request = process.request("execute_request", execute_request(escape_surrogates(code)))
        outcome, reply = self._wait(process, request, started + limit)
        if outcome == "reply":
            result = self._answered(process, reply, started, note)
        elif outcome == "died":
            result = self._died(process, started)
        else:
            result = self._stopped(process, request, outcome, limit, started)
        if result.status == "ok":
            self._cells.append((code, result.seconds))
        return result

    def _wait(
        self,
        process: KernelProcess,
        request: str,
        deadline: float,
        stops: tuple[str, ...] = _STOPS,
    ) -> tuple[str, dict[str, Any]]:
        """Until the reply ("reply"), its death ("died"), one of `stops` asked for, "deadline"."""
        import zmq

        poller = zmq.Poller()
        poller.register(process.shell, zmq.POLLIN)
        poller.register(process.pidfd, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        while True:
            left = deadline - time.monotonic()
            ready = dict(poller.poll(max(0, left * 1000)))
            if process.shell in ready:
                reply = process.reply(request)
                if reply is not None:
                    return "reply", reply
            if process.pidfd in ready:
                return "died", {}
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            stop = self._stop
            if stop in stops:
                return str(stop), {}
            if left <= 0:
                return "deadline", {}

    def _render(self, transcript: str) -> str:
        return cell_text.render(transcript, self._pool.config.text_limit)

    def _answered(
        self, process: KernelProcess, reply: dict[str, Any], started: float, note: str
    ) -> Execution:
        ok = reply.get("status") == "ok"
        text = self._render(note + process.text())
        seconds = time.monotonic() - started
        error = None if ok else str(reply.get("ename"))
        return Execution("ok" if ok else "error", text, seconds, error)

    def _died(self, process: KernelProcess, started: float) -> Execution:
        reason = process.death or "it crashed, exited, or used too much memory"
        text = process.text() + cell_text.block(cell_text.died_line(reason))
        self._drop()
        return Execution("died", self._render(text), time.monotonic() - started, None, killed=True)

    def _stopped(
        self, process: KernelProcess, request: str, outcome: str, limit: float, started: float
    ) -> Execution:
        """The ladder: interrupt, grace, probe; else kill."""
        cancelled = outcome != "deadline"
        kept = None if outcome == "kill" else self._interrupt(process, request)
        survived, where = kept is not None, None
        if kept is not None:
            text, where = _without_interrupt(kept)
        else:
            process.kill()
            process.wait(KILL_SECONDS)
            text = process.text()
            self._drop()
        if cancelled:
            line = cell_text.cancelled_line(killed=not survived)
        else:
            line = cell_text.timeout_line(limit, killed=not survived, where=where)
        seconds = time.monotonic() - started
        rendered = self._render(text + cell_text.block(line))
        return Execution("timeout", rendered, seconds, None, not survived, cancelled)

    def _interrupt(self, process: KernelProcess, request: str) -> str | None:
        """Interrupt the cell: its transcript if the kernel may be trusted further, else None."""
        grace = self._pool.config.grace
        now = time.monotonic()
        for deadline in (now + grace / 2, now + grace):
            process.interrupt()
            outcome, _ = self._wait(process, request, deadline, ("kill",))
            if outcome in ("died", "kill"):
                return None
            if outcome == "reply":
                kept = process.text()
                probe = process.request("execute_request", execute_request("6*7", silent=True))
                until = max(now + grace, time.monotonic() + PROBE_SECONDS)
                outcome, reply = self._wait(process, probe, until, ("kill",))
                return kept if outcome == "reply" and reply.get("status") == "ok" else None
        return None

    def _reset(self, process: KernelProcess) -> bool:
        """Clear a kernel that is kept for the next lease; whether it may be trusted."""
        code = SOFT_RESET + self._pool.config.preamble
        for cell in (code, "6*7"):
            request = process.request("execute_request", execute_request(cell, silent=True))
            outcome, reply = self._wait(process, request, time.monotonic() + RESET_SECONDS, ())
            if outcome != "reply" or reply.get("status") != "ok":
                return False
        return True

    def _drop(self) -> None:
        """The process is lost; the next cell gets a fresh one."""
        process, self._process = self._process, None
        self._replay_due = True
        self._pool._replaced(process)

    def _renew(self) -> None:
        if self._process is not None:
            self._drop()
        self._process = self._pool._take(self._pool.config.start_timeout)

    def _replay(self) -> str:
        """Run the lease's successful cells again in the fresh process, where the pool is to."""
        process = self._process
        due, self._replay_due = self._replay_due, False
        if process is None or not due or not self._pool.config.replay or not self._cells:
            return ""
        done = 0
        for code, seconds in self._cells:
            request = process.request("execute_request", execute_request(code))
            limit = time.monotonic() + max(1.0, 3 * seconds)
            outcome, reply = self._wait(process, request, limit)
            if outcome != "reply":
                self._process = None
                self._pool._replaced(process)
                self._cells.clear()
                self._process = self._pool._take(self._pool.config.start_timeout)
                return cell_text.block(
                    "The earlier cells could not be run again; variables are gone."
                )
            done += reply.get("status") == "ok"
        return cell_text.block(cell_text.replayed_line(done))


def _without_interrupt(transcript: str) -> tuple[str, str | None]:
    """The transcript less the interrupt's own traceback, and the line the cell was at."""
    head, mark, tail = transcript.rpartition(cell_text.BLOCK)
    last = tail.rstrip().rpartition("\n")[2]
    if mark and last.startswith(_INTERRUPTED):
        return head, cell_text.last_frame(tail)
    return transcript, None
