"""A run over many problems on a cluster: hands them out, records them, and survives losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from eightfold.common.counted_noun import counted
from eightfold.common.error_text import one_line

from ..devices.child_process import ChildLostError
from ..display.progress_display import ProgressDisplay
from ..display.progress_text import duration
from ..evaluation.machine_failure import RETRIES, Cause, MachineFailure
from ..evaluation.problem_queue import ProblemQueue
from ..evaluation.problem_record import problem_line, set_aside_record
from ..evaluation.run_folder import RunFolder
from ..evaluation.run_tally import RunTally
from ..problem_set import Problem
from ..solver_config import SolverConfig, SolverError
from ..time_budget import Budget
from .cluster_view import cluster_line, cluster_view
from .crew_messages import (
    AttemptEnded,
    CrewLike,
    CrewReport,
    HeadLostError,
    ProblemEnded,
    Task,
    WorkersLostError,
)

SUSPICIOUS = (Cause.WORKER, Cause.OVERDUE, Cause.ENGINE)
"""Causes that a problem itself may bring about; it is alone in its worker from then on."""

MAX_KILLS = 3
"""Workers that may die with a problem in them before it is set aside."""

ROUND_SECONDS = 0.25
"""Longest time between two looks at what happened."""

PATIENCE_SECONDS = 900.0
"""Time to wait for a lost head, or for a first worker, before the run ends; it can be resumed."""

RECONNECT_SECONDS = 3.0
"""Seconds between two tries to join the cluster again."""


@dataclass
class Flight:
    """A problem that a worker solves, and what became of earlier tries.

    Attributes:
        task: what the crew was given.
        began: when.
    """

    task: Task
    began: float = field(default_factory=time.monotonic)


class ClusterRun:
    """Solves the problems of a run that are not finished yet, on a crew of workers.

    Args:
        problems: all problems of the run, which are read as they are taken.
        total: how many they are.
        folder: where everything is recorded.
        config: settings of the solver.
        make_crew: connects to the cluster; called again if its head is lost.
        budget: bounds the whole run; None bounds only each problem, by the solver's settings.

    Attributes:
        tally: numbers of problems: in all, done, known and right.
        set_aside: ids of problems that were given up because the machine failed each time.
        out_of_time: True if the budget ran out before all problems were solved.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        total: int,
        folder: RunFolder,
        config: SolverConfig,
        make_crew: Callable[[], CrewLike],
        budget: Budget | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.budget = budget
        self.tally = RunTally(total, folder)
        self.set_aside: list[str] = []
        self.out_of_time = False
        self._make_crew = make_crew
        self._queue = ProblemQueue(problems, total, folder.finished, self.tally.done)
        self._failures: dict[str, list[MachineFailure]] = {}  # of problems tried again, by id
        self._flights: dict[str, Flight] = {}
        self._report = CrewReport()
        self._heard = time.monotonic()  # when there was a worker last
        self._heads_lost = 0

    def run(self, display: ProgressDisplay) -> None:
        """Solve the waiting problems until all are done or the budget is spent.

        Raises:
            SolverError: the cluster cannot be used, or the user's input is wrong.
            OSError: a record could not be written, or there are no workers any more.
        """
        crew: CrewLike | None = self._make_crew()
        try:
            self.folder.begin()
            while self._queue.left or self._flights:
                if crew is None:
                    crew = self._join_again(display)
                tasks = self._next_tasks(self._report.free)
                if not tasks and not self._flights and self.out_of_time:
                    break
                try:
                    self._report = crew.exchange(tasks, ROUND_SECONDS)
                except (ChildLostError, HeadLostError) as error:
                    self._lose_crew(crew, error, display)
                    crew = None
                    continue
                self._take(display)
        finally:
            display.clear()
            if crew is not None:
                crew.close()

    def status(self) -> str:
        """Return one line about the run: problems, accuracy, time, speed, and workers."""
        speed = sum(worker.speed for worker in self._report.workers)
        return f"{self.tally.status(speed)} | {cluster_line(self._report, self._heads_lost)}"

    # Handing out

    def _next_tasks(self, free: int) -> list[Task]:
        """Take as many problems as there is room for."""
        tasks: list[Task] = []
        while len(tasks) < free and self._queue.left:
            seconds = self._grant()
            if seconds <= 0:
                self.out_of_time = True
                break
            problem = self._queue.take()
            if problem is None:
                break
            failures = self._failures.get(problem.id, ())
            number = self.folder.next_round() if failures else self.folder.round
            alone = any(one.cause in SUSPICIOUS for one in failures)
            task = Task(problem, number, seconds, alone)
            self._flights[problem.id] = Flight(task)
            tasks.append(task)
        return tasks

    def _grant(self) -> float:
        """Return the seconds for the next problem."""
        if self.budget is None:
            return self.config.time
        slots = max(1, len(self._flights) + self._report.free)
        return min(self.config.time, self.budget.grant(-(-(self._queue.left - 1) // slots)))

    # What came back

    def _take(self, display: ProgressDisplay) -> None:
        """Record what a report tells, and show it."""
        lines = list(self._report.notes)
        for event in self._report.events:
            if isinstance(event, AttemptEnded):
                if self._flying(event.id, event.round) is not None:
                    record = {"round": event.round, "id": event.id, **event.record}
                    self.folder.write("attempts", record)
            elif isinstance(event, ProblemEnded):
                lines += self._take_problem(event)
            else:
                for id_, failure in event.failures.items():
                    lines += self._take_failure(id_, failure)
        self.folder.sync_problems()
        if self._report.workers:
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > PATIENCE_SECONDS:
            waited = duration(PATIENCE_SECONDS)
            raise WorkersLostError(f"There has been no worker for {waited}; --resume goes on.")
        for line in lines:
            display.line(line)
        report = self._report
        display.view(self.status(), lambda *size: cluster_view(self.status(), report, *size))

    def _flying(self, id_: str, number: int) -> Flight | None:
        """Return the flight that an event is about; None if it is one of an earlier try."""
        flight = self._flights.get(id_)
        return flight if flight is not None and flight.task.round == number else None

    def _take_problem(self, event: ProblemEnded) -> list[str]:
        flight = self._flying(event.id, event.round)
        if flight is None:
            return []
        failures = self._failures.get(event.id, ())
        if event.failure is not None and sum(not one.shared for one in failures) < RETRIES:
            return self._take_failure(event.id, event.failure)
        del self._flights[event.id]
        if self.budget is not None:
            self.budget.record(flight.task.seconds, time.monotonic() - flight.began)
        return [self._finish({"round": event.round, **event.record})]

    def _take_failure(self, id_: str, failure: MachineFailure) -> list[str]:
        """Let a problem be solved again, or give it up; return lines to show."""
        flight = self._flights.pop(id_, None)
        if flight is None:
            return []
        failures = self._failures.setdefault(id_, [])
        failures.append(failure)
        own = [one.cause for one in failures if not one.shared]
        kills = own.count(Cause.WORKER) + own.count(Cause.OVERDUE)
        if kills < MAX_KILLS and len(own) <= RETRIES:
            self._queue.put_off(flight.task.problem)
            return [f"{one_line(id_, 40)}: {failure.cause}; it is tried again later"]
        self.set_aside.append(id_)
        record = set_aside_record(flight.task.problem, self.config.attempts, failures)
        line = self._finish({"round": flight.task.round, **record})
        return [f"{line}; it is set aside after {counted(len(failures), 'failure')}"]

    def _finish(self, record: dict[str, Any]) -> str:
        """Record a problem and return its line."""
        failures = self._failures.pop(record["id"], [])
        if not record["infrastructure"]:
            record["infrastructure"] = [one.record() for one in failures]
        self.folder.write("problems", record, sync=False)
        self.tally.add(record)
        return f"{self.tally.done}/{self.tally.total} {problem_line(record)}"

    # Losing the cluster

    def _lose_crew(self, crew: CrewLike, error: Exception, display: ProgressDisplay) -> None:
        """Note that all workers are gone; their problems are solved again."""
        self._heads_lost += 1
        self._report = CrewReport(lost=self._report.lost, back=self._report.back)
        display.line(f"the cluster is lost: {one_line(error, 200)}")
        failure = MachineFailure(Cause.HEAD, one_line(error, 200))
        for id_ in list(self._flights):
            for line in self._take_failure(id_, failure):
                display.line(line)
        self.folder.sync_problems()
        crew.close()

    def _join_again(self, display: ProgressDisplay) -> CrewLike:
        """Wait for the head of the cluster, and connect to it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            display.note("waiting for the head of the cluster")
            try:
                crew = self._make_crew()
            except (SolverError, ChildLostError) as error:
                if time.monotonic() > deadline:
                    raise WorkersLostError(f"{error} --resume goes on.") from error
                time.sleep(RECONNECT_SECONDS)
            else:
                display.line("the cluster is back")
                self._heard = time.monotonic()
                return crew
