"""The thread that drives the engine, on which attempts are advanced as well."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar

from .backend_interfaces import EngineLike

if TYPE_CHECKING:
    from eightfold.engine import Event

T = TypeVar("T")

MAX_FAILURES = 3
"""Number of steps that may fail in a row before the sequences in them are given up."""


class EngineLostError(RuntimeError):
    """The engine's thread or process has ended; it cannot run any further sequence."""


class Listener(Protocol):
    """Receives the loop's clock and faults, on the engine thread; each method must be brief."""

    def tick(self, now: float) -> float:
        """Check the time (`time.monotonic`) and return when to be called next."""

    def fault(self, error: Exception, final: bool) -> None:
        """Handle a failed step; `final` is True if the sequences are given up."""


class EngineLoop:
    """Steps an engine on a thread of its own and passes its events on.

    Attributes:
        engine: the engine.
        error: the exception that ended the thread, or None.
    """

    def __init__(self, engine: EngineLike) -> None:
        self.engine = engine
        self.error: BaseException | None = None
        self._handlers: dict[int, Callable[[Event], None]] = {}
        self._listeners: list[Listener] = []
        self._commands: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while the thread runs; False after `close` and after a fault of the loop itself."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """True on the engine's thread."""
        return self._thread is threading.current_thread()

    def post(self, command: Callable[[], None]) -> None:
        """Run `command` on the engine thread between two steps, without waiting for it.

        May be called from any thread.
        """
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    def call(self, command: Callable[[], T]) -> T:
        """Run `command` on the engine thread between two steps, and return its result.

        Raises:
            EngineLostError: if the engine's thread has ended.
            Exception: if `command` raises it.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)
                if isinstance(error, EngineLostError):
                    raise

        self.post(run)
        while self.alive:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise
        if future.done():
            return future.result()
        lost = isinstance(self.error, EngineLostError)
        said = str(self.error) if lost else "The engine's thread has ended."
        raise EngineLostError(said) from self.error

    # The following four methods may be called on the engine thread only.

    def subscribe(self, seq: int, handler: Callable[[Event], None]) -> None:
        """Pass the events of a sequence to `handler` until it has finished."""
        self._handlers[seq] = handler

    def unsubscribe(self, seq: int) -> None:
        """Stop passing on the events of a sequence."""
        self._handlers.pop(seq, None)

    def add_listener(self, listener: Listener) -> None:
        """Pass the clock and faults to a listener."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Stop passing the clock and faults to a listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def close(self) -> None:
        """End the thread after the current step."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not self.is_current:
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
                listener.fault(self.fault, final=True)
            if not isinstance(error, EngineLostError):  # else a traceback would tell no more
                raise

    @property
    def fault(self) -> RuntimeError:
        """The error that ended the thread, as the requests on it are told."""
        if isinstance(self.error, EngineLostError):
            return self.error
        return RuntimeError(f"the engine's thread ended: {self.error!r}")

    def _between_steps(self) -> float:
        """Run commands and ticks; return when the next tick is due."""
        while self._commands:
            self._commands.popleft()()
        now = time.monotonic()
        return min((listener.tick(now) for listener in list(self._listeners)), default=now + 1.0)

    def _step(self) -> None:
        try:
            events = self.engine.step()
        except EngineLostError:
            raise  # nothing of it is left to try again with
        except Exception as error:
            self._on_failure(error)
            return
        self._failures = 0
        for event in events:
            handler = self._handlers.get(event.seq)
            if event.status == "finished":
                self.unsubscribe(event.seq)
            if handler is not None:
                handler(event)

    def _on_failure(self, error: Exception) -> None:
        # The engine keeps the tokens of every sequence and recomputes them in the next step.
        self._failures += 1
        final = self._failures >= MAX_FAILURES
        if final:
            self._failures = 0
        for listener in list(self._listeners):
            listener.fault(error, final)
        if final:
            for seq in list(self._handlers):
                self.unsubscribe(seq)
                self.engine.cancel(seq)
