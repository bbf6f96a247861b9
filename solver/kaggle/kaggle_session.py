"""A run of problems: every problem gets an answer in time, whatever happens to the solver."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eightfold.common.error_text import one_line
from eightfold.common.file_errors import path_in_errors

from ..attempts.attempt import MACHINE_ENDINGS
from ..solver_config import SolverError
from ..time_budget import Budget
from .kaggle_config import KaggleConfig, is_scored_run, is_valid_answer
from .predict_values import answer_frame, id_text, problem_text

if TYPE_CHECKING:
    from polars import DataFrame

    from eightfold.engine import Preload

    from ..solver import Progress, Result, Solver

RETURN_SECONDS = 5.0  # between the solver's deadline and ours, for the solver to return
WATCHDOG_SECONDS = 0.5  # between the end of our waiting and our deadline
MIN_SECONDS = 2.0  # with less time than this, a problem is not attempted
CLOSE_SECONDS = 30.0  # for a solver to close
MAX_REBUILDS = 3  # of solvers that exist but do not work any more
MAX_LOG_CHARACTERS = 600  # of a line on standard error
FALLBACK = "fallback: "  # how the note of a problem begins that got the fallback answer


class SessionSolver(Protocol):
    """The part of a solver's interface that a session uses."""

    @property
    def alive(self) -> bool:
        """True if the solver can solve problems."""

    def solve(
        self,
        problem: str,
        *,
        key: str,
        seconds: float,
        on_progress: Callable[[Progress], None] | None,
        on_attempt: Callable[[dict[str, Any]], None],
    ) -> Result:
        """Solve a problem; see `Solver.solve`."""

    def close(self) -> None:
        """Release everything the solver holds."""


class _ProblemTask:
    """One problem in progress; the answers of attempts are kept as the attempts end."""

    def __init__(self, id_: str, text: str, deadline: float) -> None:
        self.id = id_
        self.text = text
        self.deadline = deadline  # of time.monotonic
        self.done = threading.Event()
        self.answers: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.answer: int | None = None
        self.stopped = ""
        self.faults: list[str] = []

    def add_attempt(self, record: dict[str, Any]) -> None:
        """Keep the record of an ended attempt; called on the engine thread."""
        self.records.append(record)
        if is_valid_answer(record.get("answer")):
            self.answers.append(record["answer"])

    def seconds_left(self) -> float:
        """Return the seconds that the solver may still use."""
        return self.deadline - time.monotonic() - RETURN_SECONDS

    def best_answer(self) -> int | None:
        """Return the vote's answer or, without a vote, the most frequent answer so far."""
        if is_valid_answer(self.answer):
            return self.answer
        counts = Counter(list(self.answers)).items()  # a copy: the engine thread may append
        return max(counts, key=lambda item: item[1], default=(None, 0))[0]


class Session:
    """A run of problems on one solver, which loads on a thread of its own.

    Args:
        config: settings of the run.
        make: makes the solver; None makes a `Solver` from the configuration.
        reading: a `Preload` of the model in progress, which the first solver takes over.

    Attributes:
        config: the settings.
        budget: the clock of the run.
        total: number of problems to come, for the log: those of the budget, unless a test of fewer
            is served.
        served: number of problems that `predict` was called with.
        answered: number of problems that it has answered.
        fallbacks: number of them that got the fallback answer.
        solver: the solver, or None while there is none.
        loader: the thread that loads the present solver.
        rebuilds: number of solvers that replaced another one.
        on_progress: called with a problem's id and its progress while it is being solved.
        write_log: writes a line of the log; at first to standard error.
    """

    def __init__(
        self,
        config: KaggleConfig,
        make: Callable[[], SessionSolver] | None = None,
        reading: Preload | None = None,
    ) -> None:
        self.config = config
        self.budget = Budget(config.budget)
        self.total = config.problems
        self.served = self.answered = 0
        self.fallbacks = 0
        self.solver: SessionSolver | None = None
        self.rebuilds = 0
        self.on_progress: Callable[[str, Progress], None] | None = None
        self.write_log: Callable[[str], None] = _write_to_stderr
        self._reading = reading
        self._make = make or self._make_solver
        self._replaced: SessionSolver | None = None  # a solver that a new one is to replace
        self._rebuilding = threading.Lock()
        self._broken = False  # `solver` is to be replaced before it is used again
        self._why_none = "there is no solver"
        self._closed = False
        self._log_failed = False
        self.loader = self._start_loader()

    def predict(self, id_: object, problem: object) -> DataFrame:
        """Return a one-row frame with an integer answer, before the problem's deadline.

        An exception would end the whole run, so none is raised: the problem gets the fallback
        answer instead. Only Ctrl-C, outside of a scored run, is passed on.
        """
        began = time.monotonic()
        name, answer, note = "", self.config.fallback, FALLBACK
        task: _ProblemTask | None = None
        granted = 0.0
        try:
            self.served += 1
            name = id_text(id_)
            granted = self.budget.grant(max(0, self.config.problems - self.served))
            text = problem_text(problem)
            if text is None:
                note += "the problem has no text"
            elif granted < MIN_SECONDS:
                note += "no time is left"
            else:
                task = self._run_watched(name, text, began + granted)
                found = task.best_answer()
                if found is None:
                    reason = "; ".join(task.faults) or task.stopped or "no attempt answered"
                    note += one_line(reason)
                else:
                    answer, note = found, task.stopped
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not is_scored_run():
                raise
            note += one_line(error)
        self.fallbacks += note.startswith(FALLBACK)
        self._record(name, answer, note, began, granted, task)
        self.answered += 1
        return answer_frame(name, answer)

    def close(self) -> None:
        """Close the solver, waiting at most `CLOSE_SECONDS`; one that is loading closes later."""
        self._closed = True
        self._close(self.solver)

    # One problem

    def _run_watched(self, name: str, text: str, deadline: float) -> _ProblemTask:
        """Run a problem on a thread of its own, which is left behind if the solver hangs."""
        task = _ProblemTask(name, text, deadline)
        threading.Thread(target=self._run, args=(task,), name="problem", daemon=True).start()
        if not task.done.wait(max(0.0, deadline - time.monotonic() - WATCHDOG_SECONDS)):
            task.stopped = task.stopped or "out of time, the solver did not return"
            self._broken = self.solver is not None
        return task

    def _run(self, task: _ProblemTask) -> None:
        """Solve a problem, once more on a new solver if the first one breaks."""
        try:
            for _ in range(2):
                if task.answer is not None or task.seconds_left() < MIN_SECONDS:
                    break
                self._solve(task)
                if not self._broken:
                    break
        except BaseException as error:
            task.faults.append(one_line(error))
        finally:
            task.done.set()

    def _solve(self, task: _ProblemTask) -> None:
        solver = self._wait_for_solver(task)
        if solver is None:
            return
        seconds = task.seconds_left()
        if seconds < 1:
            task.faults.append("the time went by while the model was loading")
            return
        try:
            result = solver.solve(
                task.text,
                key=task.id,
                seconds=seconds,
                on_progress=self.on_progress and partial(self.on_progress, task.id),
                on_attempt=task.add_attempt,
            )
        except SolverError as error:  # the problem is at fault, not the solver
            task.faults.append(one_line(error))
            return
        except BaseException as error:
            task.faults.append(one_line(error))
            # A solver that hung may return long after another one has replaced it.
            self._broken = self._broken or solver is self.solver
            return
        self._take_result(task, solver, result)

    def _take_result(self, task: _ProblemTask, solver: SessionSolver, result: Result) -> None:
        task.answer, task.stopped = result.answer, result.stopped
        task.faults += [one_line(fault) for fault in result.faults[:4]]
        if result.answer is None:
            ends = [(record.get("ending"), record.get("detail")) for record in result.attempts]
            reasons = dict.fromkeys(
                one_line(f"{ending}: {detail}") for ending, detail in ends if detail
            )
            task.faults += list(reasons)[:2]
        if solver is self.solver:
            endings = {record.get("ending") for record in result.attempts}
            lost = bool(endings & set(MACHINE_ENDINGS))
            self._broken = result.answer is None and lost

    def _record(
        self,
        name: str,
        answer: int,
        note: str,
        began: float,
        granted: float,
        task: _ProblemTask | None,
    ) -> None:
        """Log a problem. A failure, such as a full disk, must not cost the answer."""
        try:
            taken = time.monotonic() - began
            self.budget.record(granted, taken)
            line = {
                "id": name,
                "answer": answer,
                "note": note,
                "fallback": note.startswith(FALLBACK),
                "votes": dict(Counter(task.answers)) if task else {},
                "seconds": round(taken, 2),
                "granted": round(granted, 2),
                "left": round(self.budget.left()),
                "faults": task.faults if task else [],
            }
            self._log(
                f"{self.served} of {self.total} | {name}: {answer} ({note}) | "
                f"{taken:.0f} of {granted:.0f} s | {line['left']} s left"
            )
            records = task.records if task else []
            _append(self.config.log, [line])
            _append(self.config.traces, [{"id": name, **record} for record in records])
        except Exception as error:
            if not self._log_failed:
                self._log_failed = True  # it is told once, not with each problem
                self._log(f"the log could not be written: {one_line(error)}")

    # The solver

    def _wait_for_solver(self, task: _ProblemTask) -> SessionSolver | None:
        """Return the solver, rebuilt if it was lost, or None if there is none in time."""
        if self._broken or (self.solver is not None and not self.solver.alive):
            self._rebuild(task)
        self.loader.join(max(0.0, task.seconds_left()))
        if self.solver is None and not self.loader.is_alive():
            self._rebuild(task)
            self.loader.join(max(0.0, task.seconds_left()))
        if self.solver is None:
            loading = self.loader.is_alive()
            task.faults.append("the model is still loading" if loading else self._why_none)
        return self.solver

    def _rebuild(self, task: _ProblemTask) -> None:
        """Start to load a new solver, unless one is loading or no further one may be."""
        with self._rebuilding:
            # Without any solver, the limit does not matter: only the fallback would be left.
            used_up = self.solver is not None and self.rebuilds >= MAX_REBUILDS
            if used_up or self._closed or self.loader.is_alive():
                return
            self.rebuilds += 1
            task.faults.append("the solver is rebuilt")
            self._replaced, self.solver, self._broken = self.solver, None, False
            self.loader = self._start_loader()

    def _start_loader(self) -> threading.Thread:
        loader = threading.Thread(target=self._load, name="loader", daemon=True)
        loader.start()
        return loader

    def _load(self) -> None:
        """Make the solver, after the one that it replaces has been closed."""
        began = time.monotonic()
        if self._close(self._replaced):
            # A model that fills a GPU leaves no room for another until nothing refers to it.
            self._replaced = None
            _free_memory()
        try:
            solver = self._make()
            self.solver, self._replaced = solver, None
            if self._closed:
                self._close(solver)
            self._log(f"solver ready after {time.monotonic() - began:.0f} s")
        except BaseException as error:
            self._why_none = one_line(f"the solver could not be made: {one_line(error)}")
            self._log(self._why_none)
            # If the old solver did not close, it only hangs, and may work again.
            self.solver, self._replaced = self._replaced, None

    def _make_solver(self) -> Solver:
        from ..solver import Solver

        reading, self._reading = self._reading, None
        solver = Solver(self.config.solver, reading=reading)
        self._log(solver.loop.engine.table())
        return solver

    def _close(self, solver: SessionSolver | None) -> bool:
        """Close a solver on a thread of its own; return False if it does not close in time."""
        if solver is None:
            return True

        def close() -> None:
            try:
                solver.close()
            except Exception as error:
                self._log(f"the solver did not close: {one_line(error)}")

        thread = threading.Thread(target=close, name="closer", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)
        return not thread.is_alive()

    def _log(self, text: str) -> None:
        try:
            self.write_log(text[:MAX_LOG_CHARACTERS])
        except Exception:
            return  # a closed stream must not end the run


def _write_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _append(path: Path | None, lines: list[dict[str, Any]]) -> None:
    """Append lines of JSON to a file."""
    if path is not None and lines:
        with path_in_errors(path), open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)


def _free_memory() -> None:
    """Release what nothing refers to any more, memory of the GPU included."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
