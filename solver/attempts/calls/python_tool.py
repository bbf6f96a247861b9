"""The tool `python` of one attempt: a kernel leased at the first call and kept until the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from ...chat.tool_call import Call, MalformedCall
from ..backend_interfaces import KernelLike, PoolLike
from .call_record import CallRecord

KILL_INTERVAL = 0.02
"""Seconds between requests to kill a cell: a request has no effect while the cell is starting."""

LEASE_SECONDS = 0.5
"""Longest wait for a kernel before the tool checks whether it has been closed."""


class PythonTool:
    """Runs an attempt's calls on threads of an executor, one batch at a time.

    Args:
        pool: pool of the kernels.
        executor: must have a free thread for every attempt; otherwise attempts that wait for a
            kernel could block those that hold one.
        timeout: seconds that a call may take.
        malformed: output for a call that cannot be read, with {reason}.

    Attributes:
        closed: set once the kernel has been given back.
        outage: the reason why the sandbox can make no kernel for a waiting call at present.
    """

    def __init__(self, pool: PoolLike, executor: Executor, timeout: float, malformed: str) -> None:
        self._pool = pool
        self._executor = executor
        self._timeout = timeout
        self._malformed = malformed
        self._kernel: KernelLike | None = None
        self._stopped = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self.closed = threading.Event()
        self.outage: str | None = None

    def run(
        self,
        calls: Sequence[Call | MalformedCall],
        done: Callable[[list[CallRecord] | Exception], None],
    ) -> None:
        """Run the calls in order on another thread.

        Args:
            calls: calls of one turn.
            done: receives their records, or the error of the sandbox; not called after `close`.
        """
        if self._stopped.is_set():
            return
        self._idle.clear()
        self._executor.submit(self._run, list(calls), done)

    def close(self) -> None:
        """Stop the running cell and give the kernel back, without waiting; then set `closed`."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._kernel is None and self._idle.is_set():
            self.closed.set()
        else:
            self._executor.submit(self._close)

    def _run(
        self,
        calls: list[Call | MalformedCall],
        done: Callable[[list[CallRecord] | Exception], None],
    ) -> None:
        outcome: list[CallRecord] | Exception
        try:
            outcome = [record for call in calls if (record := self._call(call)) is not None]
        except Exception as error:
            outcome = error
        finally:
            self._idle.set()
        if not self._stopped.is_set():
            done(outcome)

    def _call(self, call: Call | MalformedCall) -> CallRecord | None:
        """Run one call; return None if the tool is closed before it can start."""
        if isinstance(call, MalformedCall):
            text = self._malformed.replace("{reason}", call.reason)
            return CallRecord(None, "malformed", text, 0.0, "malformed")
        while self._kernel is None and not self._stopped.is_set():
            try:
                self._kernel = self._pool.lease(timeout=LEASE_SECONDS)
            except TimeoutError as error:
                # Other attempts hold all kernels, and will give them back; or, if the error is one
                # of the sandbox, it can make none, and tries on.
                self.outage = str(error) if isinstance(error, RuntimeError) else None
                continue
        self.outage = None
        while self._kernel is not None and not self._stopped.is_set():
            try:
                result = self._kernel.execute(call.code, timeout=self._timeout)
                break
            except TimeoutError as error:  # the kernel has died, and the sandbox can make none yet
                self.outage = str(error)
        else:
            return None
        self.outage = None
        failure = None if result.status == "ok" else result.error or result.status
        return CallRecord(call.code, result.status, result.text, result.seconds, failure)

    def _close(self) -> None:
        try:
            while not self._idle.wait(KILL_INTERVAL):
                if self._kernel is not None:
                    self._kernel.kill()
            if self._kernel is not None:
                self._kernel.release()
        finally:
            self.closed.set()
