"""A run of problems that always gets an answer to each, in time, whatever happens to the solver."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eightfold.common.error_text import one_line
from eightfold.common.valid_text import replace_surrogates

from ..answers.boxed_answer import HIGH, LOW
from ..solver_config import SolverConfig, SolverError
from ..time_budget import Budget, BudgetConfig

MESSAGE = 300  # characters of anything that is said of a fault
RETURN_SECONDS = 5.0  # kept between the solver's own deadline and ours
SHORTEST = 2.0  # seconds under which nothing is tried
REBUILDS = 3  # times a solver that is there but lost is made anew
TEXT_LIMIT = 2_000_000  # characters that are passed on at all
FALLBACK = "fallback: "  # begins the note of a problem that got it


@dataclass(frozen=True)
class KaggleConfig:
    """How a submission runs.

    Attributes:
        solver: settings of the solver.
        problems: in the whole run; those after it share what time is left.
        budget: seconds from the process's start. The limit is 5 h less 300 s for what goes before
            this process and after the last answer.
        fallback: the answer where no attempt gave one.
        log: JSON Lines file with a line per problem; None writes none.
        traces: JSON Lines file with a line per attempt; None writes none.
    """

    solver: SolverConfig = field(default_factory=SolverConfig)
    problems: int = 50
    budget: BudgetConfig = field(default_factory=lambda: BudgetConfig(limit=17_700.0))
    fallback: int = 0
    log: Path | None = None
    traces: Path | None = None

    def __post_init__(self) -> None:
        if type(self.problems) is not int or self.problems < 1:
            given = one_line(repr(self.problems))
            raise SolverError(f"problems must be an integer of at least 1, not {given}.")
        if not in_range(self.fallback):  # it is returned where nothing else is looked at any more
            given = one_line(repr(self.fallback))
            raise SolverError(f"fallback must be an integer from {LOW} to {HIGH}, not {given}.")


def cell(value: Any) -> Any:
    """The value in a one-row Series or list; a plain value itself."""
    if isinstance(value, (str, bytes)) or value is None:
        return value
    if hasattr(value, "to_list"):
        value = value.to_list()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return value[0] if value else None
    return value


def id_text(value: Any) -> str:
    """An id as text, cut; "" for one that cannot be printed: its problem may still be solved."""
    try:
        return replace_surrogates(str(cell(value))[:MESSAGE])
    except Exception:
        return ""


def problem_text(value: Any) -> str | None:
    """A problem's text; None for what is missing, NaN, empty, no text, or far too long."""
    value = cell(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or len(value) > TEXT_LIMIT:
        return None
    text = replace_surrogates(value).strip()
    return None if not text or text.lower() == "nan" else text


def scored() -> bool:
    """Whether this is the run that counts."""
    return "KAGGLE_IS_COMPETITION_RERUN" in os.environ


def in_range(answer: Any) -> bool:
    """Whether this may be returned."""
    return isinstance(answer, int) and not isinstance(answer, bool) and LOW <= answer <= HIGH


def free_memory() -> None:
    """Gives back what nothing refers to any more, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def answer_frame(id_: Any, answer: int) -> Any:
    """A one-row frame: of polars, or of pandas where that is all there is."""
    name = str(id_)
    try:
        import polars as pl

        return pl.DataFrame(
            {"id": [name], "answer": [answer]}, schema={"id": pl.String, "answer": pl.Int64}
        )
    except ImportError:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pd.DataFrame({"id": [name], "answer": [answer]})


class _Try:
    """One problem on its way; answers of ended attempts are kept as they come."""

    def __init__(self, id_: str, text: str, deadline: float) -> None:
        self.id = id_
        self.text = text
        self.deadline = deadline
        self.done = threading.Event()
        self.answers: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.answer: int | None = None
        self.stopped = ""
        self.faults: list[str] = []

    def ended(self, record: dict[str, Any]) -> None:
        """Takes an attempt's record (engine thread)."""
        self.records.append(record)
        if in_range(record.get("answer")):
            self.answers.append(record["answer"])

    def best(self) -> int | None:
        """The vote's answer; late, the most frequent one of the attempts that have ended."""
        if in_range(self.answer):
            return self.answer
        return max(Counter(list(self.answers)).items(), key=lambda item: item[1], default=(None,))[
            0
        ]


class Session:
    """A run of problems over one solver, which loads on a thread of its own.

    Args:
        make: makes the solver; None: a `Solver` of the configuration.
        reading: a `Preload` of the model under way, which the first solver takes over.
    """

    def __init__(
        self, config: KaggleConfig, make: Callable[[], Any] | None = None, reading: Any = None
    ) -> None:
        self.config = config
        self._reading = reading
        self.budget = Budget(config.budget)
        self.served = 0
        self.fallbacks = 0
        self.solver: Any = None
        self._old: Any = None  # a solver that is to make way for a new one
        self.rebuilds = 0
        self._make = make or self._make_solver
        self._loading = threading.Lock()
        self._broken = False
        self._why_none = "there is no solver"
        self._closed = False
        self.loader = threading.Thread(target=self._load, name="loader", daemon=True)
        self.loader.start()

    def predict(self, id_: Any, problem: Any) -> Any:
        """A one-row frame with an integer answer; never raises, back before the deadline."""
        began = time.monotonic()
        name, answer, note = "", self.config.fallback, FALLBACK
        tried: _Try | None = None
        granted = 0.0
        try:
            self.served += 1
            name = id_text(id_)
            granted = self.budget.grant(max(0, self.config.problems - self.served))
            text = problem_text(problem)
            if text is None:
                note += "the problem has no text"
            elif granted < SHORTEST:
                note += "no time is left"
            else:
                tried = self._try(name, text, began + granted)
                found = tried.best()
                if found is None:
                    note += one_line(
                        "; ".join(tried.faults) or tried.stopped or "no attempt answered"
                    )
                else:
                    answer, note = found, tried.stopped
        except BaseException as error:  # nothing may leave: it would end the whole run
            if isinstance(error, KeyboardInterrupt) and not scored():
                raise  # a person at the keyboard
            note += one_line(error)
        self.fallbacks += note.startswith(FALLBACK)
        self._record(name, answer, note, began, granted, tried)
        return answer_frame(name, answer)

    def close(self) -> None:
        """Ends the solver, waiting for it at most 30 s; one that still loads ends when loaded."""
        self._closed = True
        self._close(self.solver)

    def _try(self, name: str, text: str, deadline: float) -> _Try:
        tried = _Try(name, text, deadline)
        worker = threading.Thread(target=self._work, args=(tried,), name="problem", daemon=True)
        worker.start()
        # The watchdog: a solver that hangs keeps its thread, not ours.
        if not tried.done.wait(max(0.0, deadline - time.monotonic() - 0.5)):
            tried.stopped = tried.stopped or "out of time, the solver did not return"
            self._broken = self.solver is not None
        return tried

    def _work(self, tried: _Try) -> None:
        try:
            for _ in range(2):
                left = tried.deadline - time.monotonic() - RETURN_SECONDS
                if tried.answer is not None or left < SHORTEST:
                    break
                self._solve(tried)
                if not self._broken:
                    break
        except BaseException as error:
            tried.faults.append(one_line(error))
        finally:
            tried.done.set()

    def _solve(self, tried: _Try) -> None:
        solver = self._ready(tried)
        if solver is None:
            return
        left = tried.deadline - time.monotonic() - RETURN_SECONDS
        if left < 1:
            tried.faults.append("the time went by while the model was loading")
            return
        try:
            result = solver.solve(tried.text, key=tried.id, seconds=left, on_attempt=tried.ended)
        except SolverError as error:  # the problem's fault, not the solver's
            tried.faults.append(one_line(error))
            return
        except BaseException as error:
            tried.faults.append(one_line(error))
            # One that hung may end long after another has taken its place.
            self._broken = self._broken or solver is self.solver
            return
        tried.answer, tried.stopped = result.answer, result.stopped
        tried.faults += [one_line(fault) for fault in result.faults[:4]]
        if result.answer is None:
            ends = [(record.get("ending"), record.get("detail")) for record in result.attempts]
            told = dict.fromkeys(
                one_line(f"{ending}: {detail}") for ending, detail in ends if detail
            )
            tried.faults += list(told)[:2]
        endings = {record.get("ending") for record in result.attempts}
        if solver is self.solver:
            lost = bool(endings & {"engine failed", "sandbox failed"})
            self._broken = result.answer is None and lost

    def _ready(self, tried: _Try) -> Any:
        """The solver, made anew where it was lost; None where there is none in time."""
        if self._broken or (self.solver is not None and not self.solver.alive):
            self._renew(tried)
        self.loader.join(max(0.0, tried.deadline - time.monotonic() - RETURN_SECONDS))
        if self.solver is None and not self.loader.is_alive():
            self._renew(tried)
            self.loader.join(max(0.0, tried.deadline - time.monotonic() - RETURN_SECONDS))
        if self.solver is None:
            lacks = "the model is still loading" if self.loader.is_alive() else self._why_none
            tried.faults.append(lacks)
        return self.solver

    def _renew(self, tried: _Try) -> None:
        with self._loading:
            # Without any solver another try costs nothing: all that is left is the fallback.
            spent = self.solver is not None and self.rebuilds >= REBUILDS
            if spent or self.loader.is_alive():
                return
            self.rebuilds += 1
            tried.faults.append("the solver is made anew")
            self._old, self.solver, self._broken = self.solver, None, False
            self.loader = threading.Thread(target=self._load, name="loader", daemon=True)
            self.loader.start()

    def _load(self) -> None:
        began = time.monotonic()
        if self._close(self._old):
            # A model that fills a GPU leaves no room for another until nothing refers to it.
            self._old = None
            free_memory()
        try:
            solver = self._make()
            self.solver, self._old = solver, None
            if self._closed:
                self._close(solver)
            self._say(f"solver ready after {time.monotonic() - began:.0f} s")
        except BaseException as error:
            self._why_none = one_line(f"the solver could not be made: {one_line(error)}")
            self._say(self._why_none)
            # Where the old one only hung, it may yet come back.
            self.solver, self._old = self._old, None

    def _close(self, solver: Any) -> bool:
        if solver is None:
            return True

        def end() -> None:
            try:
                solver.close()
            except Exception as error:
                self._say(f"the solver did not close: {one_line(error)}")

        thread = threading.Thread(target=end, name="closer", daemon=True)
        thread.start()
        thread.join(30)
        return not thread.is_alive()

    def _make_solver(self) -> Any:
        from ..solver import Solver

        reading, self._reading = self._reading, None
        solver = Solver(self.config.solver, reading=reading)
        self._say(solver.loop.engine.table())
        return solver

    def _record(
        self, name: str, answer: int, note: str, began: float, granted: float, tried: _Try | None
    ) -> None:
        """Logs a problem; that a disk is full must not matter."""
        try:
            taken = time.monotonic() - began
            self.budget.record(granted, taken)
            line = {
                "id": name,
                "answer": answer,
                "note": note,
                "fallback": note.startswith(FALLBACK),
                "votes": dict(Counter(tried.answers)) if tried else {},
                "seconds": round(taken, 2),
                "granted": round(granted, 2),
                "left": round(self.budget.left()),
                "faults": tried.faults if tried else [],
            }
            self._say(
                f"{self.served} of {self.config.problems} | {name}: {answer} ({note}) | "
                f"{taken:.0f} of {granted:.0f} s | {line['left']} s left"
            )
            _append(self.config.log, [line])
            _append(
                self.config.traces, [{"id": name, **r} for r in (tried.records if tried else [])]
            )
        except Exception as error:
            self._say(f"the log could not be written: {one_line(error)}")

    def _say(self, text: str) -> None:
        try:
            print(text[: 2 * MESSAGE], file=sys.stderr, flush=True)
        except Exception:
            return  # a closed stream is no reason to lose a run


def _append(path: Path | None, lines: list[dict[str, Any]]) -> None:
    if path is not None and lines:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
