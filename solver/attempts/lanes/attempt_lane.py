"""The attempts at a problem that one engine runs, and their sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..attempt import Attempt
from ..engine_loop import EngineLoop

if TYPE_CHECKING:
    from eightfold.engine import Event, SamplingParams


class AttemptLane:
    """The sequences of some attempts on one engine, and a listener of that engine's loop.

    `detach` and `leave` may be called from any thread, everything else on the loop's.

    Args:
        loop: the engine's thread.
        attempts: the attempts.
        tick: called with the time; returns when to be called next.
        fault: called with this lane, the error of a failed step, and whether it was given up.

    Attributes:
        loop: the engine's thread.
        attempts: the attempts.
    """

    def __init__(
        self,
        loop: EngineLoop,
        attempts: Sequence[Attempt],
        tick: Callable[[float], float],
        fault: Callable[[AttemptLane, Exception, bool], None],
    ) -> None:
        self.loop = loop
        self.attempts = attempts
        self._tick = tick
        self._fault = fault
        self._seqs: dict[int, int] = {}  # sequences of running attempts, by the attempts' indices

    # The interface `Listener` of the engine's loop

    def tick(self, now: float) -> float:
        """Pass the clock on."""
        return self._tick(now)

    def fault(self, error: Exception, final: bool) -> None:
        """Pass a failed step on."""
        self._fault(self, error, final)

    # Sequences

    def start(
        self,
        prompt: list[int],
        params: SamplingParams,
        on_event: Callable[[Attempt, Event], None],
        on_refusal: Callable[[Attempt, str], None],
    ) -> None:
        """Submit the prompt once and fork it for each further attempt that has not ended.

        Args:
            prompt: token ids.
            params: sampling parameters, the seed apart.
            on_event: called with the events of an attempt's sequence.
            on_refusal: called if the engine has no room for an attempt.

        Raises:
            ValueError: if the engine cannot take the prompt.
        """
        attempts = [attempt for attempt in self.attempts if not attempt.over]
        if not attempts:
            return
        engine = self.loop.engine
        first, *others = attempts
        seqs = [engine.submit(prompt, replace(params, seed=first.seed))]
        self.loop.add_listener(self)
        if others:
            try:
                seqs += engine.fork(seqs[0], len(others), [other.seed for other in others])
            except ValueError as error:
                for attempt in others:
                    on_refusal(attempt, str(error))
        for attempt, seq in zip(attempts, seqs, strict=False):
            self._seqs[attempt.index] = seq
            self.loop.subscribe(seq, partial(on_event, attempt))

    def forget(self, attempt: Attempt) -> None:
        """Note that the engine has ended an attempt's sequence."""
        self._seqs.pop(attempt.index, None)

    def detach(self, attempt: Attempt) -> None:
        """Cancel an attempt's sequence, if it has one, before the engine's next step."""
        seq = self._seqs.pop(attempt.index, None)
        if seq is not None:
            self._on_loop(partial(self._cancel, seq))

    def resume(self, attempt: Attempt, ids: list[int]) -> bool:
        """Append tokens to an attempt's sequence; return False if it has ended.

        Raises:
            ValueError: if the tokens do not fit.
        """
        return self.loop.engine.resume(self._seqs[attempt.index], ids)

    def rewind(self, attempt: Attempt, count: int) -> None:
        """Take tokens from the end of an attempt's sequence, which is paused then."""
        engine, seq = self.loop.engine, self._seqs[attempt.index]
        engine.rewind(seq, len(engine.tokens(seq)) - count)

    def leave(self) -> None:
        """Listen to the loop no longer."""
        self._on_loop(partial(self.loop.remove_listener, self))

    def _cancel(self, seq: int) -> None:
        self.loop.unsubscribe(seq)
        self.loop.engine.cancel(seq)

    def _on_loop(self, action: Callable[[], None]) -> None:
        """Run an action on the loop's thread, at once if this is that thread or if it has ended."""
        if self.loop.is_current or not self.loop.alive:
            action()
        else:
            self.loop.post(action)
