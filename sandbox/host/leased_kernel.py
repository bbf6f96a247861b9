"""A leased kernel: runs cells, limits their time, and deals with those that do not end."""

from __future__ import annotations

import math
import select
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.common.valid_text import escape_surrogates

from ..cell_result import Execution
from ..sandbox_errors import SandboxError, SandboxOutageError
from ..text import cell_text
from ..text.preamble import SOFT_RESET
from .kernel_process import KernelProcess
from .pool_state import PoolState, deadline_after
from .request_channel import ChannelError
from .wake_pipe import WakePipe

if TYPE_CHECKING:
    from jupyter_client import BlockingKernelClient

CLOSING_SECONDS = 0.5  # longest time between the end of a channel and that of its process
PROBE_SECONDS = 0.3  # shortest time for the answer that shows that an interrupted kernel is sound
RENEW_SECONDS = 0.25  # between two looks at whether one who waits for a process has been stopped
RESET_SECONDS = 3.0  # time for each step of resetting a kernel that is kept
MAX_CODE = 1 << 20  # characters of a cell
_STOPS = ("interrupt", "kill")


class Kernel(AbstractContextManager["Kernel"]):
    """The kernel of one lease, which `KernelPool.lease` returns.

    Only one thread at a time may call `execute`; the other methods may be called from any thread.
    """

    def __init__(self, state: PoolState, process: KernelProcess) -> None:
        self._state = state
        self._config = state.config
        self._process: KernelProcess | None = process
        self._wake_pipe = WakePipe()
        self._busy = threading.Lock()  # held while a cell runs
        self._lock = threading.Lock()  # guards the wake pipe, `_stop` and the two flags
        self._leaving = False  # release() has begun, so no further cell may start
        self._released = False
        self._stop: str | None = None  # "interrupt" or "kill", requested by another thread
        self._cells: list[tuple[str, float]] = []  # code and seconds of successful cells
        self._replay_due = False
        self._request = 0  # number of the latest request

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def pid(self) -> int | None:
        """Process id of the kernel; None between a kill and the next cell."""
        process = self._process
        return process.pid if process else None

    @property
    def connection_file(self) -> Path | None:
        """The Jupyter connection file of the process; None between a kill and the next cell."""
        process = self._process
        return process.connection_file if process else None

    def execute(self, code: str, timeout: float | None = None) -> Execution:
        """Run a cell and return its result; never raise for anything that the code does.

        The cell after one that was killed runs in a fresh process.

        Args:
            code: the cell, which may use IPython's syntax.
            timeout: seconds that the cell may run; None means `PoolConfig.timeout`.

        Raises:
            ValueError: `timeout` is not a positive, finite number.
            SandboxError: the kernel is released.
            SandboxOutageError: the process has ended, and the pool cannot make a fresh one now.
            RuntimeError: another thread is executing a cell.
        """
        limit = self._config.timeout if timeout is None else timeout
        if not 0 < limit < math.inf:
            raise ValueError(f"The timeout must be a positive number of seconds, not {limit}.")
        self._begin()
        try:
            return self._execute(code, limit)
        finally:
            self._end()

    def blocking_client(self, timeout: float = 10.0) -> BlockingKernelClient:
        """Return a new client of jupyter_client that is connected to this kernel.

        It is meant for notebooks, debuggers and tests. All five channels are started; call the
        client's `stop_channels` when done. It belongs to the kernel's present process: after a kill
        or a release it stays without answers, and the lease needs a new client.

        While a cell runs, use the client only to receive what the cell shows (iopub). A kernel
        answers its requests one after the other, so that a request of the client that precedes a
        cell uses up the cell's time limit, can be interrupted in its place, and can overwrite its
        text. Cells that the client runs have no time limit and are not part of a replay.

        Args:
            timeout: seconds to wait for the kernel to answer on its channels. A `release` in
                another thread waits for as long.

        Raises:
            SandboxError: the kernel is released, its process has ended, or it does not answer.
            RuntimeError: another thread is executing a cell.
        """
        from jupyter_client import BlockingKernelClient

        self._begin()
        try:
            process = self._process
            if process is None or not process.alive():
                raise SandboxError("The kernel's process has ended. Execute a cell to replace it.")
            client = BlockingKernelClient()
            client.load_connection_info(process.connection_info)
            client.start_channels()
            try:
                client.wait_for_ready(timeout=timeout)
            except BaseException as error:
                client.stop_channels()
                if isinstance(error, RuntimeError):
                    raise SandboxError(f"The kernel does not answer: {error}.") from error
                raise
            return client
        finally:
            self._end()

    def interrupt(self) -> None:
        """Interrupt the running cell, if any; `execute` returns within the grace period."""
        self._request_stop("interrupt")

    def kill(self) -> None:
        """Kill the process of the running cell, if any; `execute` returns at once."""
        self._request_stop("kill")

    def release(self) -> None:
        """Give the kernel back, which ends it. Safe to call twice and while a cell runs.

        With ``PoolConfig.reset="soft"``, a kernel that can still be reset goes to the next lease.
        """
        with self._lock:
            self._leaving = True
        self.kill()
        with self._busy:
            with self._lock:
                if self._released:
                    return
                self._released = True
            process, self._process = self._process, None
            keep = process is not None and self._state.keeps_kernels() and self._reset(process)
            self._state.close_lease(self, process, keep=keep)
            self._wake_pipe.close()

    def _begin(self) -> None:
        if not self._busy.acquire(blocking=False):
            if self._leaving:
                raise SandboxError("This kernel has been released.")
            raise RuntimeError("This kernel is in use by another thread.")
        if self._leaving:
            self._end()
            raise SandboxError("This kernel has been released.")

    def _end(self) -> None:
        with self._lock:  # a request to stop that comes after this is for no cell
            self._stop = None
            self._busy.release()

    def _request_stop(self, how: str) -> None:
        with self._lock:
            if not self._released and self._busy.locked() and self._stop != "kill":
                self._stop = how
                self._wake_pipe.wake()

    def _execute(self, code: str, limit: float) -> Execution:
        if len(code) > MAX_CODE:
            return Execution("error", f"ValueError: a cell may have {MAX_CODE} characters", 0.0)
        process, note = self._living_process()
        started = time.monotonic()
        process.clear_text()
        outcome, reply = self._run(process, escape_surrogates(code), started + limit)
        if outcome == "reply":
            result = self._completed(process, reply, started, note)
        elif outcome == "died":
            result = self._died(process, started)
        else:
            result = self._stopped(process, outcome, limit, started, note)
        if result.status == "ok":
            self._cells.append((code, result.seconds))
        return result

    def _living_process(self) -> tuple[KernelProcess, str]:
        """Return the process, replaced if it has ended, and what the model must know of that."""
        process = self._process
        if process is not None and process.alive():
            return process, ""
        unexpected = process is not None  # it ended between two cells
        if process is not None:
            self._drop(process)
        self._renew()
        note = self._replay()
        assert self._process is not None
        if unexpected and not note:
            note = cell_text.block("The Python process had ended. All variables are gone.")
        return self._process, note

    def _run(
        self,
        process: KernelProcess,
        code: str,
        deadline: float,
        stops: tuple[str, ...] = _STOPS,
        *,
        silent: bool = False,
    ) -> tuple[str, dict[str, Any]]:
        """Send a request and wait as `_wait` does."""
        try:
            self._request = process.channel.send(code, silent=silent)
        except ChannelError:
            return self._cut_off(process)
        return self._wait(process, deadline, stops)

    def _cut_off(self, process: KernelProcess) -> tuple[str, dict[str, Any]]:
        """Kill a process that has closed its channel, or sends what no kernel sends."""
        # A process that ends closes its channel just before, and is not to blame for that.
        if not process.wait(CLOSING_SECONDS):
            self._state.kill(process, "it broke the connection to its pool")
        return "died", {}

    def _wait(
        self, process: KernelProcess, deadline: float, stops: tuple[str, ...] = _STOPS
    ) -> tuple[str, dict[str, Any]]:
        """Wait for the first of several outcomes of the latest request.

        Returns:
            The outcome and the reply's content. The outcome is "reply", "died" (the process has
            ended), one of `stops` that another thread has requested, or "deadline". The content is
            empty unless there is a reply.
        """
        channel = process.channel
        poller = select.poll()
        poller.register(process.pidfd, select.POLLIN)
        poller.register(self._wake_pipe.fileno(), select.POLLIN)
        while True:
            poller.register(channel, channel.events)
            left = deadline - time.monotonic()
            if self._stop in stops:  # before this wait, perhaps while earlier cells were run again
                left = min(left, 0.0)
            ready = dict(poller.poll(max(0, math.ceil(left * 1000))))
            try:
                if ready.get(channel.fileno(), 0) & select.POLLOUT:
                    channel.flush()
                if ready.get(channel.fileno(), 0) & ~select.POLLOUT:
                    reply = channel.receive(self._request)
                    if reply is not None:
                        return "reply", reply
            except ChannelError:
                return self._cut_off(process)
            if process.pidfd in ready:
                return "died", {}
            if self._wake_pipe.fileno() in ready:
                self._wake_pipe.clear()
            stop = self._stop
            if stop in stops:
                return str(stop), {}
            if left <= 0:
                return "deadline", {}

    def _render(self, raw_text: str) -> str:
        with self._state.text_lock:
            return cell_text.render(raw_text, self._config.text_limit)

    def _completed(
        self, process: KernelProcess, reply: dict[str, Any], started: float, note: str
    ) -> Execution:
        ok = reply.get("status") == "ok"
        text = self._render(note + process.read_text())
        seconds = time.monotonic() - started
        error = None if ok else cell_text.bounded_name(reply.get("ename"))
        return Execution("ok" if ok else "error", text, seconds, error)

    def _died(self, process: KernelProcess, started: float) -> Execution:
        reason = process.kill_reason or "it crashed, exited, or used too much memory"
        text = process.read_text() + cell_text.block(cell_text.died_line(reason))
        self._drop(process)
        return Execution("died", self._render(text), time.monotonic() - started, None, killed=True)

    def _stopped(
        self, process: KernelProcess, outcome: str, limit: float, started: float, note: str
    ) -> Execution:
        """Stop the cell: interrupt it and probe the kernel; kill the process if that fails."""
        cancelled = outcome != "deadline"
        text = None if outcome == "kill" else self._interrupt(process)
        killed, location = text is None, None
        if text is not None:
            text, location = cell_text.without_interrupt(text)
        else:
            process.kill()
            text = process.read_text()
            self._drop(process)
        if cancelled:
            line = cell_text.cancelled_line(killed=killed)
        else:
            line = cell_text.timeout_line(limit, killed=killed, location=location)
        seconds = time.monotonic() - started
        if not killed:
            text = note + text
        rendered = self._render(text + cell_text.block(line))
        return Execution("timeout", rendered, seconds, None, killed, cancelled)

    def _interrupt(self, process: KernelProcess) -> str | None:
        """Interrupt the cell, again after half the grace period.

        Returns:
            The cell's raw text if it has ended and the kernel answers a probe correctly, else None.
        """
        grace = self._config.grace
        now = time.monotonic()
        for deadline in (now + grace / 2, now + grace):
            process.interrupt()
            outcome, _ = self._wait(process, deadline, ("kill",))
            if outcome in ("died", "kill"):
                return None
            if outcome == "reply":
                text = process.read_text()
                until = max(now + grace, time.monotonic() + PROBE_SECONDS)
                outcome, reply = self._run(process, "6*7", until, ("kill",), silent=True)
                return text if outcome == "reply" and reply.get("status") == "ok" else None
        return None

    def _reset(self, process: KernelProcess) -> bool:
        """Reset a kernel for the next lease; return whether that worked."""
        code = SOFT_RESET + self._config.preamble
        for cell in (code, "6*7"):
            until = time.monotonic() + RESET_SECONDS
            outcome, reply = self._run(process, cell, until, (), silent=True)
            if outcome != "reply" or reply.get("status") != "ok":
                return False
        return True

    def _drop(self, process: KernelProcess) -> None:
        """Give up the process; the next cell gets a fresh one."""
        self._process = None
        self._replay_due = True
        self._state.discard(process)

    def _renew(self) -> None:
        """Take a fresh process.

        Raises:
            SandboxOutageError: the pool could not make one in time, or the caller was stopped.
        """
        deadline = time.monotonic() + self._config.start_timeout
        while True:
            try:
                self._process = self._state.take_ready(deadline_after(RENEW_SECONDS))
                return
            except TimeoutError as error:
                if time.monotonic() >= deadline or self._stop == "kill":
                    raise SandboxOutageError(str(error)) from error

    def _replay(self) -> str:
        """Run the lease's successful cells in the fresh process, if `PoolConfig.replay` is set.

        Returns:
            What the model must know of it.
        """
        process = self._process
        due, self._replay_due = self._replay_due, False
        if process is None or not due or not self._config.replay or not self._cells:
            return ""
        succeeded = 0
        for code, seconds in self._cells:
            limit = time.monotonic() + max(1.0, 3 * seconds)
            outcome, reply = self._run(process, code, limit)
            if outcome != "reply":
                self._process = None
                self._state.discard(process)
                self._cells.clear()
                self._renew()
                return cell_text.block(
                    "The earlier cells could not be run again; variables are gone."
                )
            succeeded += reply.get("status") == "ok"
        return cell_text.block(cell_text.replayed_line(succeeded))
