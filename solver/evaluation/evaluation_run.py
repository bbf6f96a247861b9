"""Run a solver over a set of problems, several in parallel if asked, and record everything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from eightfold.common.counted_noun import counted
from eightfold.common.error_text import one_line

from ..attempts.engine_loop import EngineLostError
from ..attempts.problem_progress import UnderWay
from ..display.progress_display import ProgressDisplay
from ..problem_set import Problem
from ..solver_config import SolverConfig
from ..time_budget import Budget
from .machine_failure import RETRIES, Cause, MachineFailure, attempt_failure
from .problem_queue import ProblemQueue
from .problem_record import problem_line, problem_record
from .run_folder import RunFolder
from .run_tally import RunTally

if TYPE_CHECKING:
    from ..solver import Progress, Result


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
        problems: all problems of the run, which are read as they are taken.
        total: how many they are.
        folder: where everything is recorded.
        parallel: number of problems solved at the same time.
        budget: bounds the whole run; None bounds only each problem, by the solver's settings.

    Attributes:
        tally: numbers of problems: in all, done, known and right.
        out_of_time: True if the budget ran out before all problems were solved.
    """

    def __init__(
        self,
        solver: EvaluatedSolver,
        problems: Iterable[Problem],
        total: int,
        folder: RunFolder,
        parallel: int = 1,
        budget: Budget | None = None,
    ) -> None:
        self.solver = solver
        self.folder = folder
        self.budget = budget
        self.parallel = parallel
        self.tally = RunTally(total, folder)
        self.waiting = ProblemQueue(problems, total, folder.finished, self.tally.done)
        self._failures: dict[str, list[MachineFailure]] = {}  # of problems that were put off
        self.out_of_time = False
        self.error: BaseException | None = None
        self._stopping = False
        self._lines: deque[str] = deque()  # of finished problems, not shown yet
        self._progress: dict[str, Progress | None] = {}  # of the problems under way, by id
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
            for index in range(min(self.parallel, self.waiting.left))
        ]
        try:
            for worker in workers:
                worker.start()
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
        running = self._under_way()
        speed = sum(one.progress.speed for one in running if one.progress is not None)
        return self.tally.status(speed)

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
            if not self.waiting.left:
                return None
            seconds = self.solver.config.time
            if self.budget is not None:
                # Later problems are solved `parallel` at a time.
                after = -(-(self.waiting.left - 1) // self.parallel)
                seconds = min(seconds, self.budget.grant(after))
                if seconds <= 0:
                    self.out_of_time = True
                    return None
            problem = self.waiting.take()
            return None if problem is None else (problem, seconds)

    def _solve(self, problem: Problem, seconds: float) -> None:
        began = time.monotonic()
        failed: list[OSError] = []
        failures = self._failures.get(problem.id, [])
        number = self.folder.next_round() if failures else self.folder.round

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
        failure = attempt_failure(result.attempts)
        if failure is not None and len(failures) < RETRIES:
            self._failures[problem.id] = [*failures, failure]
            self._put_off(problem, record, failure, seconds, time.monotonic() - began)
            return
        record["infrastructure"] = [one.record() for one in failures]
        self.folder.write("problems", record)
        with self._lock:
            if self.budget is not None:
                self.budget.record(seconds, time.monotonic() - began)
            self.tally.add(record)
            self._lines.append(f"{self.tally.done}/{self.tally.total} {problem_line(record)}")

    def _put_off(
        self,
        problem: Problem,
        record: dict[str, Any],
        failure: MachineFailure,
        granted: float,
        taken: float,
    ) -> None:
        """Solve a problem again after the others, by when the cause of its losses may be gone."""
        with self._lock:
            if self.budget is not None:
                self.budget.record(granted, taken)
            self.waiting.put_off(problem)
            lost = counted(record["lost"], "attempt")
            what = "sandbox" if failure.cause is Cause.SANDBOX else "engine"
            self._lines.append(
                f"{one_line(problem.id, 40)}: the {what} failed in {lost}; it is tried again later"
            )
