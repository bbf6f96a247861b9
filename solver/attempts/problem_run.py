"""All attempts at one problem: started together, voted on as they end, stopped once decided."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from eightfold.common.error_text import one_line

from .attempt import Action, Attempt, CallTools, Ending, Feed
from .attempt_statistics import AttemptStatistics
from .attempt_trace import attempt_record
from .calls.call_record import CallRecord
from .calls.python_tool import PythonTool
from .draft_counts import DraftCounts
from .engine_loop import EngineLostError
from .lanes.attempt_lane import AttemptLane
from .problem_plan import ProblemPlan, SharedParts
from .problem_progress import Progress, RunningCalls, attempt_progress
from .problem_result import Result
from .voting import early_stop_reason, vote

if TYPE_CHECKING:
    from eightfold.engine import Event

RELEASE_SECONDS = 3.0
"""Longest wait for a problem's kernels to be given back, before it ends without them."""

FAULT_LENGTH = 1000
"""Largest number of characters of a fault's text."""


class ProblemRun:
    """Drives the attempts at a problem.

    `start`, `wait`, `abandon` and `progress` may be called from any thread; everything else runs on
    an engine's thread. With several engines, each has a lane of attempts; what the lanes share is
    changed under a lock, and an engine is only ever asked on its own thread.

    Args:
        plan: settings of the problem.
        parts: engines, kernels and chat format.
        on_attempt: called with the record of each attempt as it ends.

    Attributes:
        done: set once all attempts have ended.
        faults: what went wrong in the engine or the solver.
    """

    def __init__(
        self,
        plan: ProblemPlan,
        parts: SharedParts,
        on_attempt: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.plan = plan
        self.done = threading.Event()
        self.faults: list[str] = []
        self.attempts = [
            Attempt(index, seed, parts.protocol, plan.limits)
            for index, seed in enumerate(plan.seeds)
        ]
        loops = [loop for loop in parts.loops if loop.alive] or parts.loops[:1]
        self._lanes = [
            AttemptLane(loop, self.attempts[number :: len(loops)], self.tick, self._fault)
            for number, loop in enumerate(loops[: len(self.attempts)])
        ]
        self._lock = threading.RLock()  # of all that follows
        self._protocol = parts.protocol
        self._sampling = parts.sampling
        self._on_attempt = on_attempt
        malformed = parts.protocol.prompts.malformed
        self._tools = [
            PythonTool(parts.pool, parts.executor, plan.tool_timeout, malformed)
            for _ in self.attempts
        ]
        # Keys are indices of attempts.
        self._statistics: dict[int, AttemptStatistics] = {}  # of ended attempts
        self._records: dict[int, dict[str, Any]] = {}  # of ended attempts, made when first needed
        self._drafts = [DraftCounts() for _ in self.attempts]
        self._running: dict[int, RunningCalls] = {}  # the last calls that the tool was given
        self._outcome = vote([], plan.rule)
        self._prompt: list[int] = []
        self._stopped = ""  # the reason why no further attempt is awaited
        self._ending = False
        self._began = time.monotonic()

    def start(self, problem: str) -> None:
        """Submit the prompt to each engine and fork it there; an interrupt ends the attempts.

        Raises:
            ValueError: if an engine cannot take the prompt.
        """
        for number, lane in enumerate(self._lanes):
            try:
                lane.loop.call(partial(self._start, lane, problem))
            except ValueError:
                if number:
                    self.abandon(Ending.REFUSED)
                raise
            except EngineLostError as error:
                if len(self._lanes) == 1:
                    raise
                self._fault(lane, error, final=True)
            except KeyboardInterrupt:  # the engine may be starting them at this moment
                self.abandon(Ending.INTERRUPTED)
                raise

    def wait(
        self, on_progress: Callable[[Progress], None] | None = None, interval: float = 0.25
    ) -> Result:
        """Wait until the problem is decided, and return its result.

        Any exception, such as one of `on_progress` or an interrupt, ends the attempts first.

        Args:
            on_progress: called about every `interval` seconds on this thread, and at the end.
            interval: seconds.
        """
        try:
            while not self.done.wait(interval):
                if on_progress is not None:
                    on_progress(self.progress())
                for lane in self._lanes:
                    if not lane.loop.alive and not all(one.over for one in lane.attempts):
                        self._fault(lane, lane.loop.fault, final=True)
        except BaseException:
            self.abandon(Ending.INTERRUPTED)
            raise
        if not self._kernels_released():
            self.faults.append(f"kernels were not given back within {RELEASE_SECONDS:g} s")
        if on_progress is not None:
            on_progress(self.progress())
        return self._result()

    def abandon(self, ending: Ending, detail: str = "") -> None:
        """End all attempts that still run, also if an engine's thread has ended."""
        loop = self._lanes[0].loop
        if loop.alive:
            loop.post(lambda: self._end_all(ending, detail))
        else:
            self._end_all(ending, detail)

    def progress(self) -> Progress:
        """Return a snapshot of the problem."""
        seconds = self._now()
        calls = [call for attempt in self.attempts for call in attempt.calls]
        tokens = sum(attempt.tokens for attempt in self.attempts)
        return Progress(
            seconds,
            dict(Counter(str(attempt.state) for attempt in self.attempts)),
            tokens,
            len(calls),
            sum(call.status != "ok" for call in calls),
            self._outcome.votes,
            tokens / max(seconds, 1e-3),
            self.plan.seconds,
            tuple(
                attempt_progress(attempt, self._running.get(attempt.index), seconds)
                for attempt in self.attempts
            ),
        )

    def _now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def _kernels_released(self) -> bool:
        """Wait until the kernels have been given back; return False if that takes too long."""
        deadline = time.monotonic() + RELEASE_SECONDS
        return all(tool.closed.wait(max(0.0, deadline - time.monotonic())) for tool in self._tools)

    def _result(self) -> Result:
        records = tuple(self._record(attempt) for attempt in self.attempts)
        return Result(
            self._outcome.answer,
            self._outcome.votes,
            records,
            self._now(),
            sum(record["tokens"] for record in records),
            sum(record["calls"] for record in records),
            sum(record["errors"] for record in records),
            self._stopped,
            tuple(self.faults),
            tuple(self._prompt),
            self._protocol.system_message(),
        )

    def _record(self, attempt: Attempt) -> dict[str, Any]:
        index = attempt.index
        if index not in self._records:
            self._records[index] = attempt_record(
                attempt, self._statistics[index], self._drafts[index]
            )
        return self._records[index]

    def _lane(self, attempt: Attempt) -> AttemptLane:
        return self._lanes[attempt.index % len(self._lanes)]

    # What the lanes pass on from their loops

    def tick(self, now: float) -> float:
        """End the attempts when the time is up."""
        deadline = self._began + self.plan.seconds
        if now >= deadline:
            with self._lock:
                for attempt, tool in zip(self.attempts, self._tools, strict=True):
                    if tool.outage is not None and not attempt.over:
                        self._end(attempt, Ending.SANDBOX, tool.outage[:FAULT_LENGTH])
                self._end_all(Ending.TIME)
        return deadline

    def _fault(self, lane: AttemptLane, error: Exception, final: bool) -> None:
        """Note a failed step; end the lane's attempts if it was the last retry."""
        with self._lock:
            self._note(error)
            if not final:
                return
            memory = "OutOfMemoryError" in (type(error).__name__, getattr(error, "kind", ""))
            ending = Ending.MEMORY if memory else Ending.ENGINE
            detail = one_line(error, FAULT_LENGTH)
            running = [attempt for attempt in self.attempts if not attempt.over]
            if all(attempt in lane.attempts for attempt in running):
                self._end_all(ending, detail)
                return
            for attempt in lane.attempts:
                self._guard(attempt, partial(self._end, attempt, ending, detail))

    # Sequences and their events

    def _start(self, lane: AttemptLane, problem: str) -> None:
        with self._lock:
            self._prompt = self._prompt or self._protocol.render_prompt(problem)
            lane.start(
                self._prompt,
                self._sampling,
                lambda attempt, event: self._guard(attempt, lambda: self._on_event(attempt, event)),
                lambda attempt, reason: self._end(attempt, Ending.REFUSED, reason),
            )

    def _guard(self, attempt: Attempt, action: Callable[[], None]) -> None:
        """Run an action for one attempt; an exception ends that attempt only."""
        with self._lock:
            if attempt.over:
                return
            try:
                action()
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                detail = f"{type(error).__name__}: {error} ({frame.name}, line {frame.lineno})"
                self.faults.append(detail[:FAULT_LENGTH])
                if not attempt.over:
                    attempt.fail(self._now(), detail[:FAULT_LENGTH])
                if attempt.index not in self._statistics:
                    self._on_end(attempt)

    def _on_event(self, attempt: Attempt, event: Event) -> None:
        self._drafts[attempt.index].add(event.drafted, event.accepted)
        # One token after the other: code that ends in the middle ends what the event adds.
        for index in range(len(event.tokens) - 1):
            attempt.add_tokens(event.tokens[index : index + 1], event.entropies[index : index + 1])
            action: Action = attempt.stop_at_code(self._now())
            if action is not None or attempt.over:
                self._perform(attempt, action, len(event.tokens) - 1 - index)
                return
        if event.tokens:
            attempt.add_tokens(event.tokens[-1:], event.entropies[-1:])
        if event.status == "finished":
            self._lane(attempt).forget(attempt)
            attempt.on_finish(event.reason or "", self._now())
            self._on_end(attempt)
            return
        paused = event.status == "paused"
        action = attempt.stop_at_code(self._now(), min(1, len(event.tokens)), paused)
        if paused and action is None and not attempt.over:
            action = attempt.on_pause(self._now())
        if paused or action is not None or attempt.over:
            self._perform(attempt, action)

    def _perform(self, attempt: Attempt, action: Action, unread: int = 0) -> None:
        """Do what an attempt asks for.

        Args:
            unread: tokens at the end of its sequence that the attempt was not given.
        """
        if isinstance(action, CallTools):
            if action.rewind is not None:
                self._lane(attempt).rewind(attempt, action.rewind + unread)
            attempt.await_results()
            self._running[attempt.index] = RunningCalls(action.calls, self._now())
            self._tools[attempt.index].run(
                action.calls,
                lambda outcome: self._lane(attempt).loop.post(
                    lambda: self._guard(attempt, lambda: self._on_results(attempt, outcome))
                ),
            )
        elif isinstance(action, Feed):
            self._feed(attempt, action)
        else:
            self._on_end(attempt)

    def _on_results(self, attempt: Attempt, outcome: Sequence[CallRecord] | Exception) -> None:
        if isinstance(outcome, Exception):
            detail = f"{type(outcome).__name__}: {outcome}"
            self._end(attempt, Ending.SANDBOX, detail[:FAULT_LENGTH])
        else:
            self._perform(attempt, attempt.on_results(outcome, self._now()))

    def _feed(self, attempt: Attempt, feed: Feed) -> None:
        try:
            if feed.drop_last:
                self._lane(attempt).rewind(attempt, 1)
            if not self._lane(attempt).resume(attempt, list(feed.ids)):
                self._end(attempt, Ending.ENGINE, "the sequence had ended")
        except ValueError as error:
            self._end(attempt, Ending.CONTEXT, str(error))

    # Ends and votes

    def _end(self, attempt: Attempt, ending: Ending, detail: str = "") -> None:
        attempt.end(ending, self._now(), detail)
        self._on_end(attempt)

    def _on_end(self, attempt: Attempt) -> None:
        """Release what an attempt holds; end the problem if its vote decides it."""
        self._statistics[attempt.index] = attempt.statistics()
        try:
            self._lane(attempt).detach(attempt)
            self._tools[attempt.index].close()
            if self._on_attempt is not None:
                self._on_attempt(self._record(attempt))
        except Exception as error:
            self._note(error)
        if self._ending:
            return
        self._count_votes()
        running = len(self.attempts) - len(self._statistics)
        reason = early_stop_reason(self._outcome, running, self.plan.early_stop)
        if reason:
            self._stopped = reason
            self._end_all(Ending.CONSENSUS)
        elif not running:
            self._finish("all ended")

    def _note(self, error: Exception) -> None:
        """Note a fault, but a lost engine's only once: it meets every attempt on that engine."""
        text = one_line(error, FAULT_LENGTH)
        if not isinstance(error, EngineLostError) or text not in self.faults:
            self.faults.append(text)

    def _count_votes(self) -> None:
        self._outcome = vote(list(self._statistics.values()), self.plan.rule)

    def _end_all(self, ending: Ending, detail: str = "") -> None:
        with self._lock:
            if not self.done.is_set() and not self._ending:
                self._end_running(ending, detail)

    def _end_running(self, ending: Ending, detail: str) -> None:
        self._ending = True
        running = [attempt for attempt in self.attempts if not attempt.over]
        for attempt in running:
            # All sequences come first, so that none takes part in another step meanwhile.
            try:
                self._lane(attempt).detach(attempt)
            except Exception as error:
                self._note(error)
        try:
            for attempt in running:
                self._guard(attempt, partial(self._end, attempt, ending, detail))
            self._count_votes()
        finally:  # whatever fails here, nobody may wait for it
            self._finish(str(ending))

    def _finish(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        for lane in self._lanes:
            lane.leave()
        self.done.set()
