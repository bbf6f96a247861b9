"""Run a solver over a set of problems, several in parallel if asked, and record everything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eightfold.common.counted_noun import counted
from eightfold.common.error_text import one_line

from ..attempts.attempt import Ending
from ..attempts.draft_counts import sum_drafts
from ..attempts.engine_loop import EngineLostError
from ..attempts.problem_progress import UnderWay
from ..display.progress_display import ProgressDisplay
from ..display.progress_text import duration
from ..problem_set import Problem
from ..solver_config import SolverConfig
from ..time_budget import Budget
from .run_folder import RunFolder

if TYPE_CHECKING:
    from ..solver import Progress, Result


RETRIES = 2
"""Times that a problem is solved again if the machine, and not the model, failed attempts at it."""


class EvaluatedSolver(Protocol):
    """The part of a solver's interface that an evaluation uses."""

    @property
    def config(self) -> SolverConfig:
        """Settings of the solver."""

    @property
    def alive(self) -> bool:
        """True if the solver can solve problems."""

    def solve_or_nothing(
        self,
        problem: str,
        *,
        key: str,
        seconds: float,
        on_progress: Callable[[Progress], None],
        on_attempt: Callable[[dict[str, Any]], None],
    ) -> Result:
        """Solve a problem; see `Solver.solve_or_nothing`."""


class Evaluation:
    """Solves the problems of a run that are not finished yet.

    Args:
        solver: what solves the problems.
        problems: all problems of the run.
        folder: where everything is recorded.
        parallel: number of problems solved at the same time.
        budget: bounds the whole run; None bounds only each problem, by the solver's settings.

    Attributes:
        total, done: numbers of problems, and of those that are finished.
        known, right: numbers of finished problems whose answer is known, and that were solved.
        out_of_time: True if the budget ran out before all problems were solved.
    """

    def __init__(
        self,
        solver: EvaluatedSolver,
        problems: Sequence[Problem],
        folder: RunFolder,
        parallel: int = 1,
        budget: Budget | None = None,
    ) -> None:
        self.solver = solver
        self.folder = folder
        self.budget = budget
        self.parallel = parallel
        self.total = len(problems)
        self.done = len(folder.finished)
        self.known = self.right = 0
        for record in folder.finished.values():
            self._count(record)
        self.waiting = deque(one for one in problems if one.id not in folder.finished)
        self._retried: dict[str, int] = {}  # times that a problem was put off, by id
        self.out_of_time = False
        self.error: BaseException | None = None
        self._solved_here = 0  # not counting what earlier starts finished
        self._stopping = False
        self._lines: deque[str] = deque()  # of finished problems, not shown yet
        self._progress: dict[str, Progress | None] = {}  # of the problems under way, by id
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def run(self, display: ProgressDisplay) -> None:
        """Solve the waiting problems until all are done or the budget is spent.

        Raises:
            EngineLostError: the engine's thread died; another process can resume the run.
            OSError: a record could not be written.
        """
        self.folder.begin()
        workers = [
            threading.Thread(target=self._work, name=f"problem-{index}", daemon=True)
            for index in range(min(self.parallel, len(self.waiting)))
        ]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                for worker in workers:
                    worker.join(0.2)
                self._show_lines(display)
                display.run_progress(self.status(), self._under_way())
            self._show_lines(display)
        except BaseException:
            self._stopping = True
            self.waiting.clear()
            raise
        finally:
            display.clear()
        if self.error is not None:
            raise self.error

    def _show_lines(self, display: ProgressDisplay) -> None:
        """Print a line for each problem that was finished since the last call."""
        while self._lines:
            display.line(self._lines.popleft())

    def _under_way(self) -> list[UnderWay]:
        """Return the problems that are being solved."""
        return [UnderWay(id_, progress) for id_, progress in list(self._progress.items())]

    def status(self) -> str:
        """Return one line: problems done, accuracy so far, time passed and time to go, speed."""
        passed = time.monotonic() - self._began
        accuracy = f"{self.right}/{self.known} right" if self.known else "no answers known"
        text = f"{self.done}/{counted(self.total, 'problem')} | {accuracy} | {duration(passed)}"
        if self._solved_here:
            to_go = passed / self._solved_here * (self.total - self.done)
            text += f", about {duration(to_go)} to go"
        speed = sum(one.progress.speed for one in self._under_way() if one.progress is not None)
        return f"{text} | {speed:.0f} tokens/s" if speed else text

    def _work(self) -> None:
        """Solve one problem after another, on a thread of its own."""
        try:
            while (problem := self._next()) is not None:
                self._solve(*problem)
        except BaseException as error:
            self.error = self.error or error
            self.waiting.clear()

    def _next(self) -> tuple[Problem, float] | None:
        """Return the next problem and its seconds, or None if there is none or no time."""
        with self._lock:
            if not self.waiting:
                return None
            seconds = self.solver.config.time
            if self.budget is not None:
                # Later problems are solved `parallel` at a time.
                after = -(-(len(self.waiting) - 1) // self.parallel)
                seconds = min(seconds, self.budget.grant(after))
                if seconds <= 0:
                    self.out_of_time = True
                    return None
            return self.waiting.popleft(), seconds

    def _solve(self, problem: Problem, seconds: float) -> None:
        began = time.monotonic()
        failed: list[OSError] = []
        retried = self._retried.get(problem.id, 0)
        number = self.folder.next_round() if retried else self.folder.round

        def write_attempt(record: dict[str, Any]) -> None:
            try:
                self.folder.write("attempts", {"round": number, "id": problem.id, **record})
            except OSError as error:
                failed.append(error)

        def note_progress(progress: Progress) -> None:
            self._progress[problem.id] = progress

        self._progress[problem.id] = None
        try:
            result = self.solver.solve_or_nothing(
                problem.text,
                key=problem.id,
                seconds=seconds,
                on_progress=note_progress,
                on_attempt=write_attempt,
            )
        finally:
            del self._progress[problem.id]
        if self._stopping:
            return  # interrupted: the problem is run again when the run is resumed
        if failed:
            raise failed[0]  # a problem whose attempts are not recorded is not done
        if not self.solver.alive:
            raise EngineLostError(f"The engine's thread has ended in problem {problem.id}.")
        record = {"round": number, **problem_record(problem, result, seconds)}
        if record["lost"] and retried < RETRIES:
            self._put_off(problem, record, seconds, time.monotonic() - began)
            return
        self.folder.write("problems", record)
        with self._lock:
            if self.budget is not None:
                self.budget.record(seconds, time.monotonic() - began)
            self.done += 1
            self._solved_here += 1
            self._count(record)
            self._lines.append(f"{self.done}/{self.total} {problem_line(record)}")

    def _put_off(
        self, problem: Problem, record: dict[str, Any], granted: float, taken: float
    ) -> None:
        """Solve a problem again after the others, by when the cause of its losses may be gone."""
        with self._lock:
            if self.budget is not None:
                self.budget.record(granted, taken)
            self._retried[problem.id] = self._retried.get(problem.id, 0) + 1
            self.waiting.append(problem)
            lost = counted(record["lost"], "attempt")
            self._lines.append(
                f"{one_line(problem.id, 40)}: the sandbox failed in {lost}; it is tried again later"
            )

    def _count(self, record: dict[str, Any]) -> None:
        if record["truth"] is not None:
            self.known += 1
            self.right += record["answer"] == record["truth"]


def problem_line(record: dict[str, Any]) -> str:
    """Return what to show of a finished problem: its answer, the votes for it, time and faults.

    Args:
        record: its line of problems.jsonl.
    """
    answer, truth = record["answer"], record["truth"]
    given = "no answer" if answer is None else str(answer)
    if truth is not None:
        given += " (right)" if answer == truth else f" (wrong, {one_line(truth, 24)} is right)"
    votes = next(iter(record["votes"].values()), 0)
    faults = f", {counted(len(record['faults']), 'fault')}" if record["faults"] else ""
    return (
        f"{one_line(record['id'], 40)}: {given}, {votes} of {counted(record['attempts'], 'vote')}, "
        f"{duration(record['seconds'])}{faults}"
    )


def problem_record(problem: Problem, result: Result, granted: float) -> dict[str, Any]:
    """Return the line of problems.jsonl for a problem.

    Args:
        problem: the problem.
        result: its result.
        granted: seconds that it was given.
    """
    lost = sum(attempt["ending"] == Ending.SANDBOX for attempt in result.attempts)
    return {
        "id": problem.id,
        "problem": problem.text,
        "family": problem.family,
        "truth": problem.answer,
        "answer": result.answer,
        "votes": {str(answer): count for answer, count in result.votes.items()},
        "attempts": len(result.attempts),
        "lost": lost,  # attempts that the machine failed, not the model
        "stopped": result.stopped,
        "granted": round(granted, 3),
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        **sum_drafts(result.attempts),
        "calls": result.calls,
        "errors": result.errors,
        "faults": list(result.faults),
        "prompt": list(result.prompt),
        "system": result.system,
    }
