"""Sequences of requests on the engine's thread, and their events on the server's event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ..attempts.engine_loop import EngineLoop
from .api_errors import ApiError

if TYPE_CHECKING:
    from eightfold.engine import Event, SamplingParams

T = TypeVar("T")


@dataclass(frozen=True)
class Update:
    """What one step did to one sequence of a generation.

    Attributes:
        index: number of the sequence, from 0.
        tokens: new tokens, the end token included.
        reason: why the sequence finished (see `Event.reason`); None while it runs.
    """

    index: int
    tokens: tuple[int, ...]
    reason: str | None


class Generation:
    """Sequences that begin with the same prompt; an asynchronous iterator of their updates.

    Args:
        hub: what connects the event loop with the engine.
        prompt: token ids.
        params: sampling parameters of the first sequence.
        seeds: seed of each sequence.
    """

    def __init__(
        self, hub: EngineHub, prompt: Sequence[int], params: SamplingParams, seeds: Sequence[int]
    ) -> None:
        self._hub = hub
        self._prompt = list(prompt)
        self._params = replace(params, seed=seeds[0])
        self._seeds = list(seeds)
        self._updates: asyncio.Queue[Update | Exception] = asyncio.Queue()
        self._seqs: dict[int, int] = {}  # sequences that have not finished, by index
        self._over = False

    async def run(self) -> AsyncIterator[Update]:
        """Yield the updates until all sequences have finished.

        Whatever ends the iteration early, such as the client's leaving, cancels the sequences
        before the engine's next step.

        Raises:
            ApiError: the prompt does not fit, or the engine failed.
        """
        self._hub.generations.add(self)
        try:
            await self._hub.on_engine(self._start)
            running = set(range(len(self._seeds)))
            while running:
                update = await self._updates.get()
                if isinstance(update, Exception):
                    raise ApiError(f"The engine failed: {update}.", 500) from update
                if update.reason is not None:
                    running.discard(update.index)
                yield update
        finally:
            self._hub.generations.discard(self)
            self._over = True
            self._hub.loop.post(self._cancel_all)

    def stop(self, index: int) -> None:
        """Cancel one sequence, which then finishes with the reason "cancelled"."""
        self._hub.loop.post(lambda: self._cancel(index))

    def fail(self, error: Exception) -> None:
        """End the iteration with an error; called on the event loop."""
        self._updates.put_nowait(error)

    # On the engine's thread

    def _start(self) -> None:
        if self._over:  # the client left before the engine came to it
            return
        engine = self._hub.loop.engine
        try:
            seqs = [engine.submit(self._prompt, self._params)]
            try:
                seqs += (
                    engine.fork(seqs[0], len(self._seeds) - 1, self._seeds[1:])
                    if len(self._seeds) > 1
                    else []
                )
            except ValueError:
                engine.cancel(seqs[0])
                raise
        except ValueError as error:
            code = "context_length_exceeded" if "room" in str(error) else None
            raise ApiError(str(error), param="prompt", code=code) from error
        for index, seq in enumerate(seqs):
            self._seqs[index] = seq
            self._hub.loop.subscribe(seq, lambda event, index=index: self._on_event(index, event))  # type: ignore[misc]

    def _on_event(self, index: int, event: Event) -> None:
        finished = event.status == "finished"
        if finished:
            self._seqs.pop(index, None)
        reason = (event.reason or "eos") if finished else None
        self._hub.deliver(self._updates.put_nowait, Update(index, tuple(event.tokens), reason))

    def _cancel(self, index: int) -> None:
        seq = self._seqs.get(index)
        if seq is not None:
            self._hub.loop.engine.cancel(seq)

    def _cancel_all(self) -> None:
        for seq in self._seqs.values():
            self._hub.loop.unsubscribe(seq)
            self._hub.loop.engine.cancel(seq)
        self._seqs.clear()


class EngineHub:
    """Connects the engine's thread with the event loop; a `Listener` of the engine's loop.

    Args:
        loop: the engine's thread.

    Attributes:
        generations: those that run, or wait for the engine.
    """

    def __init__(self, loop: EngineLoop) -> None:
        self.loop = loop
        self.generations: set[Generation] = set()
        self._events: asyncio.AbstractEventLoop | None = None
        self._delivered: deque[tuple[Callable[[Update], None], Update]] = deque()
        self._draining = False

    def attach(self) -> None:
        """Serve the running event loop from now on."""
        self._events = asyncio.get_running_loop()
        self.loop.post(lambda: self.loop.add_listener(self))

    async def on_engine(self, action: Callable[[], T]) -> T:
        """Run an action on the engine's thread between two steps, and return its result.

        Raises:
            ApiError: the engine's thread has ended.
        """
        if not self.loop.alive:
            raise ApiError("The engine has ended; restart the server.", 503)
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(action())
            except Exception as error:
                future.set_exception(error)

        self.loop.post(run)
        return await asyncio.wrap_future(future)

    def deliver(self, handler: Callable[[Update], None], update: Update) -> None:
        """Pass an update to the event loop, which is woken once for all updates of a step."""
        self._delivered.append((handler, update))
        if not self._draining and self._events is not None:
            self._draining = True
            self._events.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = False
        while self._delivered:
            handler, update = self._delivered.popleft()
            handler(update)

    # The interface `Listener`

    def tick(self, now: float) -> float:
        """Ask for no time."""
        return now + 60.0

    def fault(self, error: Exception, final: bool) -> None:
        """Fail all generations if the engine has given their sequences up."""
        if final and self._events is not None:
            self._events.call_soon_threadsafe(self._fail_all, error)

    def _fail_all(self, error: Exception) -> None:
        for generation in list(self.generations):
            generation.fail(error)


def unix_time() -> int:
    """Return the seconds since 1970, as the protocol dates its objects."""
    return int(time.time())
