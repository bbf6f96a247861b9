"""The one thread that drives the engine; everything that touches attempts happens on it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MAX_FAILURES = 3
"""Steps that may fail in a row before the sequences in them are given up."""


class EngineLostError(RuntimeError):
    """The engine's thread has ended; nothing can be solved any more in this process."""


class Listener(Protocol):
    """What the loop tells about; all methods are called on the engine thread and must be brief."""

    def tick(self, now: float) -> float:
        """Looks at the clock (`time.monotonic`); returns when to be called next."""

    def fault(self, error: Exception, final: bool) -> None:
        """A step failed; `final` where the sequences are given up."""


class EngineLoop:
    """Steps an engine on a thread of its own and passes its events on.

    Args:
        engine: an `eightfold.engine.Engine` or what keeps its contract.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.error: BaseException | None = None
        self.steps = 0
        self._handlers: dict[int, Callable[[Any], None]] = {}
        self._listeners: list[Listener] = []
        self._commands: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False after `close` and after a fault of the loop itself."""
        return self._thread.is_alive()

    def post(self, command: Callable[[], None]) -> None:
        """Has the engine thread run `command` between two steps; from any thread, at once."""
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    def call(self, command: Callable[[], T]) -> T:
        """As `post`, but waits for the command's result and raises its exception.

        Raises:
            EngineLostError: the engine thread has ended.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)

        self.post(run)
        while self.alive:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise
        if future.done():
            return future.result()
        raise EngineLostError("the engine's thread has ended") from self.error

    def watch(self, seq: int, handler: Callable[[Any], None]) -> None:
        """Passes the events of a sequence to `handler` until it has ended (engine thread)."""
        self._handlers[seq] = handler

    def forget(self, seq: int) -> None:
        """Passes no more events of a sequence (engine thread)."""
        self._handlers.pop(seq, None)

    def add(self, listener: Listener) -> None:
        """Lets a listener hear of clock and faults (engine thread)."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Ends that (engine thread)."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def close(self) -> None:
        """Ends the thread after the step it is in."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _main(self) -> None:
        try:
            while not self._closing:
                wake = self._between_steps()
                if self.engine.has_work():
                    self._step()
                    continue
                with self._changed:
                    if not self._commands and not self._closing:
                        self._changed.wait(max(0.0, min(wake - time.monotonic(), 1.0)))
        except BaseException as error:
            self.error = error
            for listener in list(self._listeners):
                listener.fault(RuntimeError(f"the engine's thread ended: {error!r}"), final=True)
            raise

    def _between_steps(self) -> float:
        """Runs commands and clocks; returns when the next clock is due."""
        while self._commands:
            self._commands.popleft()()
        now = time.monotonic()
        return min((one.tick(now) for one in list(self._listeners)), default=now + 1.0)

    def _step(self) -> None:
        try:
            events = self.engine.step()
        except Exception as error:
            self._failed(error)
            return
        self._failures = 0
        self.steps += 1
        for event in events:
            handler = self._handlers.get(event.seq)
            if event.status == "finished":
                self.forget(event.seq)
            if handler is not None:
                handler(event)

    def _failed(self, error: Exception) -> None:
        # The engine keeps every sequence's tokens and computes them anew in the next step.
        self._failures += 1
        final = self._failures >= MAX_FAILURES
        if final:
            self._failures = 0
        for listener in list(self._listeners):
            listener.fault(error, final)
        if final:
            for seq in list(self._handlers):
                self.forget(seq)
                self.engine.cancel(seq)
