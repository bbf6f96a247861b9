"""A worker: one solver in a process that Ray started, and the problems that it solves."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eightfold.common.error_text import one_line

from ..evaluation.evaluation_run import EvaluatedSolver
from ..evaluation.machine_failure import Cause, MachineFailure, attempt_failure
from ..evaluation.problem_record import problem_record
from ..solver_config import SolverError
from .crew_messages import (
    AttemptEnded,
    CrewEvent,
    CrewPlan,
    ProblemEnded,
    Started,
    StartFailed,
    Task,
)
from .node_versions import node_versions

if TYPE_CHECKING:
    from ..solver import Progress


class SolverWorker:
    """Solves problems, each on a thread of its own; Ray makes an actor of it.

    Args:
        number: number of the worker.
        node: address of its node.
        plan: settings of the crew.
    """

    def __init__(self, number: int, node: str, plan: CrewPlan) -> None:
        self._number, self._node = number, node
        self._plan = plan
        self._solver: EvaluatedSolver | None = None
        self._changed = threading.Condition()
        self._events: list[CrewEvent] = []
        self._speeds: dict[str, float] = {}

    def start(self) -> Started | StartFailed:
        """Make the solver."""
        from eightfold.engine import ModelError

        from ..chat.chat_protocol import ProtocolError
        from ..chat.prompt_texts import PromptError

        try:
            if self._plan.factory is not None:
                self._solver = self._plan.factory(self._plan.config)
            else:
                from ..solver import Solver

                several = self._plan.gpus is not None and self._plan.gpus > 1
                devices = "auto" if several else None
                self._solver = Solver(replace(self._plan.config, devices=devices))
        except (SolverError, ModelError, PromptError, ProtocolError) as error:
            return StartFailed(str(error), wrong_input=True)
        except Exception as error:
            return StartFailed(one_line(error, 500), wrong_input=False)
        return Started(node_versions())

    def exchange(self, tasks: list[Task], seconds: float) -> tuple[list[CrewEvent], float]:
        """Begin to solve problems; return what happened, and the tokens per second.

        Waits at most so many seconds if nothing has happened.
        """
        for task in tasks:
            threading.Thread(target=self._solve, args=(task,), daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._events, seconds)
            events, self._events = self._events, []
            return events, sum(self._speeds.values())

    def close(self) -> None:
        """End the solver, its engine and its kernels."""
        close = getattr(self._solver, "close", None)
        if close is not None:
            close()

    def _solve(self, task: Task) -> None:
        problem = task.problem

        def on_attempt(record: dict[str, Any]) -> None:
            self._tell(AttemptEnded(problem.id, task.round, record))

        def on_progress(progress: Progress) -> None:
            self._speeds[problem.id] = progress.speed

        solver = self._solver
        assert solver is not None, "start() comes first"
        result = solver.solve_or_nothing(
            problem.text,
            key=problem.id,
            seconds=task.seconds,
            on_progress=on_progress,
            on_attempt=on_attempt,
        )
        self._speeds.pop(problem.id, None)
        failure = attempt_failure(result.attempts, self._number, self._node)
        if failure is None and not solver.alive:
            reason = result.faults[-1] if result.faults else "the engine has ended"
            failure = MachineFailure(Cause.ENGINE, reason, self._number, self._node)
        record = problem_record(problem, result, task.seconds)
        self._tell(ProblemEnded(problem.id, task.round, record, failure))

    def _tell(self, event: CrewEvent) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
