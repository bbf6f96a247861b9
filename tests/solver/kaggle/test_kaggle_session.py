"""Whatever happens to the solver, `predict` gives an integer in time. About 20 s."""

from __future__ import annotations

import io
import json
import random
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.solver_cases.kaggle_stubs import (
    FALLBACK,
    StubSolver,
    ask,
    fail_for_memory,
    start_session,
)

from eightfold.common.error_text import one_line
from eightfold.solver import solver, time_budget
from eightfold.solver.kaggle import kaggle_session, predict_endpoint
from eightfold.solver.kaggle.kaggle_config import KaggleConfig
from eightfold.solver.kaggle.kaggle_session import RETURN_SECONDS
from eightfold.solver.solver import Result
from eightfold.solver.time_budget import Budget, BudgetConfig

SHORT = BudgetConfig(limit=10**9, floor=8, cap=8)
"""8 seconds per problem."""


@pytest.fixture
def short_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the solver most of so short a time, also on a busy machine."""
    monkeypatch.setattr(kaggle_session, "RETURN_SECONDS", 1.0)


def logged(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_after_an_exception_a_new_solver_tries_again_and_the_log_is_short(tmp_path: Path) -> None:
    def fail(_: Any) -> int:
        raise RuntimeError("long\n" * 10_000)

    made: list[StubSolver] = []

    def make() -> StubSolver:
        made.append(StubSolver(None if made else fail))
        return made[-1]

    log = tmp_path / "log.jsonl"
    start_session(make, log=log)
    assert ask("p") == 7
    assert len(made) == 2
    assert not made[0].alive
    (line,) = logged(log)
    assert line["answer"] == 7
    assert not line["fallback"]
    assert all(len(fault) <= 300 for fault in line["faults"])
    assert len(one_line(RuntimeError("x" * 10**6))) == 300


class UnprintableError(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_an_unprintable_error_or_id_costs_neither_the_answer_nor_the_retry(tmp_path: Path) -> None:
    def fail(_: Any) -> int:
        raise UnprintableError

    assert one_line(UnprintableError()) == "UnprintableError: it cannot be printed"
    made: list[StubSolver] = []

    def make() -> StubSolver:
        made.append(StubSolver(None if made else fail))
        return made[-1]

    log = tmp_path / "log"
    start_session(make, log=log)
    assert ask() == 7, "a new solver tries again"
    frame = predict_endpoint.predict(UnprintableError(), "p")
    assert frame["answer"].item(0) == 7, "the problem can be solved whatever its id"
    last = logged(log)[-1]
    assert (last["id"], last["fallback"]) == ("", False)


def test_the_log_says_why_no_attempt_answered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "SandboxError: it ended: Traceback " + "line " * 999 + "No module named 'comm'"
    lost = {"ending": "sandbox failed", "detail": reason, "answer": None}

    class LostSolver(StubSolver):
        def solve(self, text: str, **options: Any) -> Result:
            return Result(None, {}, (lost,) * 8, 0.1, 1, 0, 0, "all ended")

    log = tmp_path / "log.jsonl"
    start_session(LostSolver, log=log)
    assert ask("p") == FALLBACK
    (line,) = logged(log)
    found = [fault for fault in line["faults"] if fault.startswith("sandbox failed: SandboxError")]
    assert found
    assert all(fault.endswith("No module named 'comm'") and len(fault) <= 300 for fault in found)
    assert "No module named 'comm'" in capfd.readouterr().err


def test_a_solver_that_cannot_be_made_costs_the_answers_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start_session(fail_for_memory, log=tmp_path / "log")
    assert [ask("p") for _ in range(5)] == [FALLBACK] * 5
    for line in logged(tmp_path / "log"):
        assert "could not be made: MemoryError: no memory" in line["faults"][-1]
    assert max(len(line) for line in capfd.readouterr().err.splitlines()) <= 600


def test_without_a_solver_each_problem_tries_to_make_one() -> None:
    tries: list[int] = []

    def make() -> StubSolver:
        tries.append(1)
        if len(tries) < 9:
            fail_for_memory()
        return StubSolver()

    start_session(make)
    assert [ask("p") for _ in range(9)] == [FALLBACK] * 7 + [7] * 2


@pytest.mark.usefixtures("short_of_time")
def test_a_solver_that_hangs_is_left_behind_with_the_votes_so_far() -> None:
    free = threading.Event()

    def hang(options: Any) -> int:
        for answer in (5, 8, 8):
            options["on_attempt"]({"answer": answer})
        free.wait(60)
        return 1

    made: list[StubSolver] = []

    def make() -> StubSolver:
        made.append(StubSolver(None if made else hang))
        return made[-1]

    run = start_session(make, budget=SHORT)
    assert ask("p") == 8, "not 1, which comes after the deadline"
    run.budget = Budget(BudgetConfig(limit=10**9))  # the next one has enough time
    assert ask("q") == 7, "the next problem has a solver of its own"
    free.set()


@pytest.mark.usefixtures("short_of_time")
def test_a_solver_that_returns_after_it_was_replaced_does_no_harm() -> None:
    late, ended = threading.Event(), threading.Event()

    def hang(_: Any) -> int:
        late.wait(60)
        threading.Thread(target=after, args=(threading.current_thread(),)).start()
        raise RuntimeError("closed meanwhile")

    def after(worker: threading.Thread) -> None:
        worker.join(60)
        ended.set()

    made: list[StubSolver] = []

    def make() -> StubSolver:
        made.append(StubSolver(None if made else hang))
        return made[-1]

    run = start_session(make, budget=SHORT)
    assert ask() == FALLBACK
    run.budget = Budget(BudgetConfig(limit=10**9))  # the others have enough time
    assert ask() == 7
    late.set()
    assert ended.wait(60)
    assert ask() == 7
    assert len(made) == 2, "the solver in its place is not replaced"


def test_a_run_that_is_ended_in_a_problem_makes_no_further_solver() -> None:
    solving, closed = threading.Event(), threading.Event()
    made: list[StubSolver] = []

    class ClosedSolver(StubSolver):
        """Fails once it is closed, as a solver whose engine has ended."""

        def solve(self, text: str, **options: Any) -> Result:
            solving.set()
            closed.wait(60)
            raise RuntimeError("the engine has ended")

        def close(self) -> None:
            super().close()
            closed.set()

    def make() -> StubSolver:
        made.append(ClosedSolver())
        return made[-1]

    run = start_session(make)
    asked = threading.Thread(target=run.predict, args=("a", "p"))
    asked.start()
    assert solving.wait(60)
    assert run.answered == 0
    run.close()
    asked.join(60)
    assert (len(made), run.rebuilds) == (1, 0)
    assert (run.answered, run.fallbacks) == (1, 1)


def test_without_time_nothing_is_attempted() -> None:
    stub = StubSolver()
    start_session(lambda: stub, budget=BudgetConfig(limit=1e-3, floor=0, cap=900))
    assert ask("p") == FALLBACK
    assert stub.texts == []


@pytest.mark.usefixtures("short_of_time")
def test_a_model_that_still_loads_costs_the_answer_not_the_run() -> None:
    free = threading.Event()

    def make() -> StubSolver:
        free.wait(60)
        return StubSolver()

    run = start_session(make, budget=SHORT)
    assert run.solver is None, "start does not wait for the model"
    assert ask("p") == FALLBACK
    run.budget = Budget(BudgetConfig(limit=10**9))  # the next one has enough time
    free.set()
    assert ask("p") == 7


class Clock:
    """Replaces the module `time` for sessions and budgets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("hard", ["all", "first", "last", "mixed", "late"])
def test_fifty_problems_never_take_more_than_five_hours(
    hard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rng = Clock(), random.Random(hard)
    monkeypatch.setattr(kaggle_session, "time", clock)
    monkeypatch.setattr(time_budget, "time", clock)
    asked: list[float] = []

    def act(options: dict[str, Any]) -> int:
        index = len(asked)
        asked.append(options["seconds"])
        is_hard = {
            "all": True,
            "late": True,
            "first": index < 20,
            "last": index >= 30,
            "mixed": rng.random() < 0.4,
        }[hard]
        clock.now += options["seconds"] if is_hard else min(options["seconds"], rng.uniform(5, 200))
        # Ending a problem takes a while; for "late", far more than is reserved for it.
        clock.now += rng.uniform(0, 60 if hard == "late" else RETURN_SECONDS)
        return 7

    run = start_session(lambda: StubSolver(act))
    run.loader.join(60)
    run.budget = time_budget.Budget(run.config.budget, spent_before=600.0, _start=clock.now)

    def run_on_this_thread(name: str, text: str, deadline: float) -> Any:
        task = kaggle_session._ProblemTask(name, text, deadline)
        run._run(task)
        return task

    monkeypatch.setattr(run, "_run_watched", run_on_this_thread)  # no watchdog: time stands still
    assert [ask("p") for _ in range(50)] == [7] * 50
    assert 600 + clock.now <= 18_000 - 300
    assert max(asked) <= 900
    assert min(asked) > 30
    if hard == "first":
        assert asked[0] > 800


def test_a_log_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    start_session(StubSolver, log=tmp_path / "none" / "log.jsonl")
    assert ask("p") == 7


def test_a_closed_standard_error_does_not_keep_the_solver_from_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ClosedStream(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    class RealSolver(StubSolver):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()
            self.loop = SimpleNamespace(engine=SimpleNamespace(table=lambda: "weights 1 GiB"))

    monkeypatch.setattr(solver, "Solver", RealSolver)
    monkeypatch.setattr(sys, "stderr", ClosedStream())
    predict_endpoint.start(KaggleConfig(fallback=FALLBACK))
    assert ask() == 7


def test_a_full_disk_costs_no_answer_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "kaggle.jsonl"
    log.symlink_to("/dev/full")
    start_session(StubSolver, log=log)
    assert [ask(id_=str(number)) for number in range(3)] == [7, 7, 7]
    told = [line for line in capsys.readouterr().err.splitlines() if "No space left" in line]
    assert len(told) == 1
    assert str(log) in told[0]
