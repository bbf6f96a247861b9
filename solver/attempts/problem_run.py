"""All attempts at one problem: started together, voted on as they end, stopped when decided."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from eightfold.common.error_text import one_line

from ..chat.chat_protocol import ChatProtocol
from .attempt import Action, Attempt, AttemptLimits, CallRecord, CallTools, Ending, Feed, State
from .attempt_statistics import AttemptStatistics
from .engine_loop import EngineLoop
from .python_tool import PythonTool
from .voting import decided, vote


@dataclass(frozen=True)
class ProblemPlan:
    """How a problem is attacked.

    Attributes:
        seeds: one per attempt.
        early_stop: equal answers that settle the vote; 0 lets every attempt end by itself.
        rule: name of the vote's rule.
        seconds: time from the start.
        tool_timeout: seconds a tool call may take.
    """

    seeds: tuple[int, ...]
    early_stop: int
    rule: str
    seconds: float
    tool_timeout: float
    limits: AttemptLimits


@dataclass(frozen=True)
class Progress:
    """Where a problem stands; `states` counts attempts by state, `speed` is tokens a second."""

    seconds: float
    states: dict[str, int]
    tokens: int
    calls: int
    errors: int
    votes: dict[int, int]
    speed: float


class ProblemRun:
    """Drives the attempts; apart from `start`, `abandon`, `progress` on the engine thread only.

    Args:
        sampling: an `eightfold.engine.SamplingParams` without seed, shared by the attempts.
        on_end: called with each attempt as it ends.
    """

    def __init__(
        self,
        loop: EngineLoop,
        protocol: ChatProtocol,
        pool: Any,
        executor: Executor,
        plan: ProblemPlan,
        sampling: Any,
        on_end: Callable[[Attempt], None] | None = None,
    ) -> None:
        self.loop = loop
        self.protocol = protocol
        self.plan = plan
        self.sampling = sampling
        self.done = threading.Event()
        self.stopped = ""  # why no further attempt was awaited
        self.faults: list[str] = []
        self.prompt: list[int] = []
        self.began = time.monotonic()
        self.attempts = [
            Attempt(index, seed, protocol, plan.limits) for index, seed in enumerate(plan.seeds)
        ]
        malformed = protocol.prompts.malformed
        self._tools = [
            PythonTool(pool, executor, plan.tool_timeout, malformed) for _ in self.attempts
        ]
        self._seqs: dict[int, int] = {}  # attempt -> sequence
        self._on_end = on_end
        self._ending = False

    def start(self, problem: str) -> None:
        """Queues the prompt and forks it.

        Raises:
            ValueError: the engine cannot take the prompt.
        """
        self.loop.call(lambda: self._start(problem))

    def abandon(self, ending: Ending, detail: str = "") -> None:
        """Ends what still runs; from any thread, also where the loop is dead."""
        if self.loop.alive:
            self.loop.post(lambda: self._end_all(ending, detail))
        else:
            self._end_all(ending, detail)

    def release(self, seconds: float) -> bool:
        """Waits until the kernels are given back; False where that took longer than `seconds`."""
        deadline = time.monotonic() + seconds
        return all(tool.closed.wait(max(0.0, deadline - time.monotonic())) for tool in self._tools)

    def progress(self) -> Progress:
        """A snapshot; from any thread."""
        seconds = self.now()
        calls = [call for attempt in self.attempts for call in attempt.calls]
        tokens = sum(attempt.tokens for attempt in self.attempts)
        states: dict[str, int] = {}
        for attempt in self.attempts:
            states[attempt.state] = states.get(attempt.state, 0) + 1
        return Progress(
            seconds,
            states,
            tokens,
            len(calls),
            sum(call.status != "ok" for call in calls),
            vote(self.statistics(), self.plan.rule).votes,
            tokens / max(seconds, 1e-3),
        )

    def statistics(self) -> list[AttemptStatistics]:
        """AttemptStatistics of the attempts that have ended."""
        return [attempt.statistics() for attempt in self.attempts if attempt.over]

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    # Listener

    def tick(self, now: float) -> float:
        """Ends the attempts when the time is up."""
        deadline = self.began + self.plan.seconds
        if now >= deadline:
            self._end_all(Ending.TIME)
        return deadline

    def fault(self, error: Exception, final: bool) -> None:
        """Notes a failed step; gives up where it was the last try."""
        self.faults.append(one_line(error, 1000))
        if final:
            self._end_all(Ending.ENGINE, self.faults[-1])

    # Engine thread

    def _start(self, problem: str) -> None:
        engine = self.loop.engine
        self.prompt = self.protocol.render_prompt(problem)
        first, *others = self.plan.seeds
        seq = engine.submit(self.prompt, self._params(first))
        self.loop.add(self)
        seqs = [seq]
        if others:
            try:
                seqs += engine.fork(seq, len(others), others)
            except ValueError as error:
                for attempt in self.attempts[1:]:
                    self._end(attempt, Ending.REFUSED, str(error))
        for attempt, seq in zip(self.attempts, seqs, strict=False):
            self._attach(attempt, seq)

    def _params(self, seed: int) -> Any:
        return replace(self.sampling, seed=seed)

    def _attach(self, attempt: Attempt, seq: int) -> None:
        self._seqs[attempt.index] = seq
        self.loop.watch(
            seq, lambda event: self._guard(attempt, lambda: self._event(attempt, event))
        )

    def _guard(self, attempt: Attempt, action: Callable[[], None]) -> None:
        """A fault in one attempt ends that attempt alone."""
        if attempt.over:
            return
        try:
            action()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            self.faults.append(detail[:1000])
            attempt.state = State.THINKING
            self._end(attempt, Ending.FAULT, detail[:1000])

    def _event(self, attempt: Attempt, event: Any) -> None:
        if event.tokens:
            attempt.receive(event.tokens, event.entropies)
        if event.status == "paused":
            self._act(attempt, attempt.paused(self.now()))
        elif event.status == "finished":
            self._seqs.pop(attempt.index, None)
            attempt.finished(event.reason, self.now())
            self._ended(attempt)

    def _act(self, attempt: Attempt, action: Action) -> None:
        if isinstance(action, CallTools):
            attempt.wait()
            self._tools[attempt.index].run(
                action.calls,
                lambda outcome: self.loop.post(
                    lambda: self._guard(attempt, lambda: self._tool_done(attempt, outcome))
                ),
            )
        elif isinstance(action, Feed):
            self._feed(attempt, action)
        else:
            self._ended(attempt)

    def _tool_done(self, attempt: Attempt, outcome: Sequence[CallRecord] | Exception) -> None:
        if isinstance(outcome, Exception):
            self._end(attempt, Ending.SANDBOX, f"{type(outcome).__name__}: {outcome}"[:1000])
        else:
            self._act(attempt, attempt.results(outcome, self.now()))

    def _feed(self, attempt: Attempt, feed: Feed) -> None:
        engine, seq = self.loop.engine, self._seqs[attempt.index]
        try:
            if feed.drop_last:
                # The engine only appends: the same tokens without the last go in anew, and find
                # their pages in the prefix cache.
                tokens = [*engine.tokens(seq)[:-1], *feed.ids]
                self._detach(attempt)
                self._attach(attempt, engine.submit(tokens, self._params(attempt.seed)))
            elif not engine.resume(seq, list(feed.ids)):
                self._end(attempt, Ending.ENGINE, "the sequence had ended")
        except ValueError as error:
            self._end(attempt, Ending.CONTEXT, str(error))

    def _detach(self, attempt: Attempt) -> None:
        seq = self._seqs.pop(attempt.index, None)
        if seq is not None:
            self.loop.forget(seq)
            self.loop.engine.cancel(seq)

    def _end(self, attempt: Attempt, ending: Ending, detail: str = "") -> None:
        attempt.end(ending, self.now(), detail)
        self._ended(attempt)

    def _ended(self, attempt: Attempt) -> None:
        """Cleans up after an attempt, and looks whether the vote is decided."""
        try:
            self._detach(attempt)
            self._tools[attempt.index].close()
            if self._on_end is not None:
                self._on_end(attempt)
        except Exception as error:
            self.faults.append(one_line(error, 1000))
        if self._ending:
            return
        statistics = self.statistics()
        running = len(self.attempts) - len(statistics)
        why = decided(statistics, running, self.plan.early_stop, self.plan.rule)
        if why:
            self.stopped = why
            self._end_all(Ending.CONSENSUS)
        elif not running:
            self._finish("all ended")

    def _end_all(self, ending: Ending, detail: str = "") -> None:
        if self.done.is_set() or self._ending:
            return
        self._ending = True
        running = [attempt for attempt in self.attempts if not attempt.over]
        for attempt in running:
            # Sequences first: none may take part in another step while the rest is cleaned up.
            try:
                self._detach(attempt)
            except Exception as error:
                self.faults.append(one_line(error, 1000))
        for attempt in running:
            self._guard(attempt, partial(self._end, attempt, ending, detail))
        self._finish(self.stopped or str(ending))

    def _finish(self, why: str) -> None:
        self.stopped = self.stopped or why
        self.loop.remove(self)
        self.done.set()
