"""The python tool of one attempt: a kernel leased at its first call and held to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from ..chat.tool_call import Call, MalformedCall
from .attempt import CallRecord

POLL = 0.02
"""Seconds between requests to a kernel to stop a cell that was just starting."""


class PythonTool:
    """Runs an attempt's calls on threads of an executor, one batch at a time.

    Args:
        pool: an `eightfold.sandbox.KernelPool` or what has its `lease`.
        executor: must have a thread free for every attempt, or attempts that wait for a kernel
            could keep those that hold one from going on.
        timeout: seconds a call may take.
        malformed: the text for a call that cannot be read, with {reason}.
    """

    def __init__(self, pool: Any, executor: Executor, timeout: float, malformed: str) -> None:
        self._pool = pool
        self._executor = executor
        self._timeout = timeout
        self._malformed = malformed
        self._kernel: Any = None
        self._stopped = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self.closed = threading.Event()

    def run(
        self,
        calls: Sequence[Call | MalformedCall],
        done: Callable[[list[CallRecord] | Exception], None],
    ) -> None:
        """Runs the calls in order on another thread, then hands `done` the records or the error.

        After `close`, `done` is not called any more.
        """
        if self._stopped.is_set():
            return
        self._idle.clear()
        self._executor.submit(self._run, list(calls), done)

    def close(self) -> None:
        """Stops the running cell and gives the kernel back, without waiting; sets `closed` then."""
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
        if isinstance(call, MalformedCall):
            text = self._malformed.replace("{reason}", call.reason)
            return CallRecord(None, "malformed", text, 0.0, "malformed")
        while self._kernel is None and not self._stopped.is_set():
            try:
                self._kernel = self._pool.lease(timeout=0.5)
            except TimeoutError:
                continue  # all kernels are held by other attempts, which end in time
        if self._stopped.is_set():
            return None
        result = self._kernel.execute(call.code, timeout=self._timeout)
        kind = None if result.status == "ok" else result.error or result.status
        return CallRecord(call.code, result.status, result.text, result.seconds, kind)

    def _close(self) -> None:
        try:
            while not self._idle.wait(POLL):
                if self._kernel is not None:
                    self._kernel.kill()
            if self._kernel is not None:
                self._kernel.release()
        finally:
            self.closed.set()
