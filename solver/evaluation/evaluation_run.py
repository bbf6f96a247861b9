"""Runs a solver over a set of problems, several at once where asked, and records everything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..attempts.engine_loop import EngineLostError
from ..problem_set import Problem
from ..progress_display import ProgressDisplay, duration
from ..time_budget import Budget
from .run_folder import RunFolder


class Evaluation:
    """Works off the problems of a run that are not finished yet.

    Args:
        solver: a `Solver`, or what has its `solve_or_nothing`, `alive`, `config`.
        parallel: problems in work at the same time.
        budget: bounds the whole run; None bounds each problem alone.
        on_end: called after each problem.
    """

    def __init__(
        self,
        solver: Any,
        problems: Sequence[Problem],
        folder: RunFolder,
        parallel: int = 1,
        budget: Budget | None = None,
        on_end: Callable[[Evaluation], None] | None = None,
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
        self.out_of_time = False
        self.error: BaseException | None = None
        self._fresh = 0
        self._stopping = False
        self._began = time.monotonic()
        self._on_end = on_end
        self._lock = threading.Lock()

    def run(self, display: ProgressDisplay) -> None:
        """Solves what is waiting; returns when all is done or the budget is spent.

        Raises:
            EngineLostError: the engine's thread died; a new process can go on.
            OSError: a trace could not be written.
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
                display.update(self.status())
        except BaseException:
            self._stopping = True
            self.waiting.clear()
            raise
        finally:
            display.clear()
        if self.error is not None:
            raise self.error

    def status(self) -> str:
        """Problems done, accuracy so far, time gone and to go."""
        gone = time.monotonic() - self._began
        accuracy = f"{self.right}/{self.known} right" if self.known else "no answers known"
        text = f"{self.done}/{self.total} problems | {accuracy} | {duration(gone)}"
        if self._fresh:
            text += f", about {duration(gone / self._fresh * (self.total - self.done))} to go"
        return text

    def _work(self) -> None:
        try:
            while (problem := self._next()) is not None:
                self._solve(*problem)
        except BaseException as error:
            self.error = self.error or error
            self.waiting.clear()

    def _next(self) -> tuple[Problem, float] | None:
        with self._lock:
            if not self.waiting:
                return None
            seconds = self.solver.config.time
            if self.budget is not None:
                # Those after this one go on `parallel` at a time.
                after = -(-(len(self.waiting) - 1) // self.parallel)
                seconds = min(seconds, self.budget.grant(after))
                if seconds <= 0:
                    self.out_of_time = True
                    return None
            return self.waiting.popleft(), seconds

    def _solve(self, problem: Problem, seconds: float) -> None:
        began = time.monotonic()
        named = {"id": problem.id}
        result = self.solver.solve_or_nothing(
            problem.text,
            key=problem.id,
            seconds=seconds,
            on_attempt=lambda record: self.folder.write("attempts", {**named, **record}),
        )
        if self._stopping:
            return  # cut off from outside: to be run anew
        if not self.solver.alive:
            raise EngineLostError(f"the engine's thread has ended in problem {problem.id}")
        record = {
            **named,
            "problem": problem.text,
            "family": problem.family,
            "truth": problem.answer,
            "answer": result.answer,
            "votes": {str(answer): count for answer, count in result.votes.items()},
            "attempts": len(result.attempts),
            "stopped": result.stopped,
            "granted": round(seconds, 3),
            "seconds": round(result.seconds, 3),
            "tokens": result.tokens,
            "calls": result.calls,
            "errors": result.errors,
            "faults": list(result.faults),
            "prompt": list(result.prompt),
        }
        self.folder.write("problems", record)
        with self._lock:
            if self.budget is not None:
                self.budget.record(seconds, time.monotonic() - began)
            self.done += 1
            self._fresh += 1
            self._count(record)
            if self._on_end is not None:
                self._on_end(self)

    def _count(self, record: dict[str, Any]) -> None:
        if record["truth"] is not None:
            self.known += 1
            self.right += record["answer"] == record["truth"]
