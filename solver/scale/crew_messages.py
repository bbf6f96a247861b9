"""What the driver of a run, its crew and its workers say to one another; all of it is pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..evaluation.evaluation_run import EvaluatedSolver
from ..evaluation.machine_failure import MachineFailure
from ..problem_set import Problem
from ..solver_config import SolverConfig, SolverError

MAX_WORKERS = 4096

SolverFactory = Callable[[SolverConfig], EvaluatedSolver]
"""Makes a worker's solver from its configuration; a method `close` is called at the end."""


@dataclass(frozen=True)
class CrewPlan:
    """Settings of a crew.

    Attributes:
        config: settings of each worker's solver.
        workers: number of workers; None takes as many as the cluster has room for, also while it
            grows and shrinks.
        address: address of the cluster's head, "auto" for the one that runs on this machine, or
            None for a cluster of this machine alone that ends with the run. Not read if the process
            is connected to Ray already.
        gpus: GPUs of a worker; None takes 1 if the cluster has any, else 0.
        parallel: problems that a worker solves at the same time.
        factory: makes the solver of a worker; None makes a `Solver`.

    Raises:
        SolverError: if a value is out of range.
    """

    config: SolverConfig
    workers: int | None = None
    address: str | None = None
    gpus: int | None = None
    parallel: int = 1
    factory: SolverFactory | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise SolverError(
                f"workers must be auto or from 1 to {MAX_WORKERS}, not {self.workers}."
            )
        if self.gpus is not None and not 0 <= self.gpus <= 64:
            raise SolverError(f"gpus_per_worker must be from 0 to 64, not {self.gpus}.")
        if self.parallel < 1:
            raise SolverError(f"parallel must be at least 1, not {self.parallel}.")


@dataclass(frozen=True)
class Task:
    """A problem to solve.

    Attributes:
        problem: the problem.
        round: number of the round, by which its attempts are told from those of earlier tries.
        seconds: time that it may take.
        alone: give it to a worker that solves nothing else meanwhile, because it was in a worker
            that died, and may have killed it.
    """

    problem: Problem
    round: int
    seconds: float
    alone: bool = False


@dataclass(frozen=True)
class AttemptEnded:
    """The record of an attempt."""

    id: str
    round: int
    record: dict[str, Any]


@dataclass(frozen=True)
class ProblemEnded:
    """The record of a problem, and the failure that cost it attempts, if any."""

    id: str
    round: int
    record: dict[str, Any]
    failure: MachineFailure | None = None


@dataclass(frozen=True)
class ProblemsLost:
    """Problems that a worker did not finish, and why, by id."""

    failures: Mapping[str, MachineFailure]


CrewEvent = AttemptEnded | ProblemEnded | ProblemsLost


@dataclass(frozen=True)
class WorkerState:
    """A snapshot of a worker.

    Attributes:
        number: its number, from 1.
        node: address of its node, or "" until it is placed.
        state: "starting", "ready" or "solving".
        problems: ids of the problems that it solves.
        solved: number of problems that it has solved.
        speed: tokens per second.
    """

    number: int
    node: str
    state: str
    problems: tuple[str, ...] = ()
    solved: int = 0
    speed: float = 0.0


@dataclass(frozen=True)
class CrewReport:
    """What happened since the last exchange.

    Attributes:
        events: what workers did, in order for each problem.
        free: number of problems that can be taken at once.
        workers: a snapshot of each worker.
        lost: number of workers that were lost so far.
        back: number of workers that have replaced one of these.
        notes: sentences for people.
    """

    events: tuple[CrewEvent, ...] = ()
    free: int = 0
    workers: tuple[WorkerState, ...] = ()
    lost: int = 0
    back: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """A worker's solver is ready; the versions are those of its node."""

    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StartFailed:
    """A worker's solver could not be made.

    Attributes:
        text: one sentence.
        wrong_input: True if it is the user's input, which fails in the same way everywhere.
    """

    text: str
    wrong_input: bool


class HeadLostError(RuntimeError):
    """The head of the cluster does not answer."""


class WorkersLostError(OSError):
    """No worker can be started on any node."""


class CrewLike(Protocol):
    """A crew in this process or in one of its own."""

    def exchange(self, tasks: list[Task], seconds: float) -> CrewReport:
        """Hand out tasks and return what happened; wait at most so long if nothing did."""

    def close(self) -> None:
        """End all workers."""
