"""Faults around a scripted model cost as few attempts as possible (3 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.solver_cases.scripted_engine import (
    ScriptedEngine,
    boxed,
    call,
    endings,
    scripted_solver,
    solve,
)

from eightfold.solver.attempts.attempt import Attempt


def test_attempt_continues_after_its_kernel_died() -> None:
    result, engine, _ = solve([[call("die"), call("ok"), boxed(4)]])
    assert result.answer == 4
    assert "KernelDied" in engine.resumed[0][0]
    assert result.attempts[0]["error_kinds"] == ["died"]


def test_failing_sandbox_ends_only_the_attempt_that_called_it() -> None:
    result, _, _ = solve([[call("lost"), boxed(1)], [boxed(2)]])
    assert endings(result) == ["sandbox failed", "answered"]
    assert "no more kernels" in result.attempts[0]["detail"]
    assert result.answer == 2


def test_exception_in_one_attempt_spares_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Attempt.on_pause

    def on_pause(self: Attempt, now: float) -> Any:
        if self.index == 0:
            raise KeyError("boom")
        return original(self, now)

    monkeypatch.setattr(Attempt, "on_pause", on_pause)
    result, _, _ = solve([[boxed(1)], [boxed(2)]])
    assert endings(result) == ["solver fault", "answered"]
    assert "boom" in result.attempts[0]["detail"]
    assert any("boom" in fault for fault in result.faults)
    assert result.answer == 2


def test_one_failed_step_costs_no_attempt() -> None:
    engine = ScriptedEngine([[boxed(1)]] * 2)
    engine.failure = lambda step: RuntimeError("CUDA error: illegal") if step == 2 else None
    result, _, _ = solve([[]] * 2, engine)
    assert result.answer == 1
    assert result.faults == ("RuntimeError: CUDA error: illegal",)


def test_broken_engine_yields_the_best_answer_so_far_and_the_next_problem_runs() -> None:
    engine = ScriptedEngine([[boxed(9)], ["long " * 1000], [boxed(5)], [boxed(5)]])
    engine.failure = lambda step: MemoryError("full") if 10 <= step < 13 else None
    with scripted_solver(engine, attempts=2) as solver:
        first = solver.solve("one")
        second = solver.solve("two")
    assert first.answer == 9
    assert endings(first) == ["answered", "engine failed"]
    assert first.faults == ("MemoryError: full",) * 3
    assert second.answer == 5


@pytest.mark.parametrize("turn", [boxed(1), "long " * 100_000])
def test_an_attempt_whose_text_cannot_be_read_ends_all_the_same(
    turn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Attempt.answer_since_calls

    def unreadable(self: Attempt) -> int | None:
        if self.index == 0:
            raise KeyError("boom")
        return original(self)

    monkeypatch.setattr(Attempt, "answer_since_calls", unreadable)
    result, _, _ = solve([[turn], [boxed(2)]], time=1.0)
    assert endings(result) == ["solver fault", "answered"]
    assert "boom" in result.attempts[0]["detail"]
    assert result.answer == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_an_attempt_that_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Attempt) -> Any:
        raise KeyError("boom")

    monkeypatch.setattr(Attempt, "statistics", broken)
    with scripted_solver(ScriptedEngine([["long " * 100_000]]), attempts=1, time=1.0) as solver:
        result = solver.solve_or_nothing("one")
    assert result.stopped == "failed"
    assert result.answer is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_engine_thread_does_not_hang_the_solver() -> None:
    engine = ScriptedEngine([["x" * 10_000]])

    def has_work() -> bool:
        if engine.steps >= 3:
            raise SystemError("gone")
        return bool(engine.sequences)

    engine.has_work = has_work  # type: ignore[method-assign]
    solver = scripted_solver(engine, attempts=1)
    result = solver.solve("one")
    solver.close()
    assert endings(result) == ["engine failed"]
    assert solver.solve_or_nothing("two").stopped == "failed"


def test_refused_fork_leaves_one_attempt_running() -> None:
    engine = ScriptedEngine([[boxed(1)]])

    def fork(seq: int, n: int, seeds: list[int]) -> list[int]:
        raise ValueError("no forks today")

    engine.fork = fork  # type: ignore[method-assign]
    result, _, _ = solve([[]] * 3, engine)
    assert endings(result) == ["answered", "engine refused", "engine refused"]
    assert result.answer == 1
