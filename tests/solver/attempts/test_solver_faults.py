"""Faults around a scripted model: the best answer so far, and the run goes on (3 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.scripted_engine import TOKENIZER, Playback, Pool, boxed, call, endings, solve

from eightfold.solver import Solver, SolverConfig
from eightfold.solver.attempts.attempt import Attempt


def test_dying_kernel_is_told_and_the_attempt_goes_on() -> None:
    result, engine, _ = solve([[call("die"), call("ok"), boxed(4)]])
    assert result.answer == 4
    assert "KernelDied" in engine.resumed[0][0]
    assert result.attempts[0]["error_kinds"] == ["died"]


def test_failing_sandbox_ends_one_attempt() -> None:
    result, _, _ = solve([[call("lost"), boxed(1)], [boxed(2)]])
    assert endings(result) == ["sandbox failed", "answered"]
    assert "no more kernels" in result.attempts[0]["detail"]
    assert result.answer == 2


def test_exception_in_one_attempt_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Attempt.paused

    def paused(self: Attempt, now: float) -> Any:
        if self.index == 0:
            raise KeyError("boom")
        return original(self, now)

    monkeypatch.setattr(Attempt, "paused", paused)
    result, _, _ = solve([[boxed(1)], [boxed(2)]])
    assert endings(result) == ["solver fault", "answered"]
    assert "boom" in result.attempts[0]["detail"]
    assert any("boom" in fault for fault in result.faults)
    assert result.answer == 2


def test_one_failed_step_is_survived() -> None:
    engine = Playback([[boxed(1)]] * 2)
    engine.broken = lambda step: RuntimeError("CUDA error: illegal") if step == 2 else None
    result, _, _ = solve([[]] * 2, engine)
    assert result.answer == 1
    assert result.faults == ("RuntimeError: CUDA error: illegal",)


def test_broken_engine_gives_the_best_answer_so_far_and_the_next_problem_runs() -> None:
    engine = Playback([[boxed(9)], ["long " * 1000], [boxed(5)], [boxed(5)]])
    engine.broken = lambda step: MemoryError("full") if 10 <= step < 13 else None
    pool = Pool()
    config = SolverConfig(attempts=2)
    with Solver(config, engine=engine, tokenizer=TOKENIZER, pool=pool) as solver:
        first = solver.solve("one")
        second = solver.solve("two")
    assert first.answer == 9
    assert endings(first) == ["answered", "engine failed"]
    assert first.faults == ("MemoryError: full",) * 3
    assert second.answer == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_engine_thread_does_not_hang_the_solver() -> None:
    engine = Playback([["x" * 10_000]])

    def has_work() -> bool:
        if engine.steps >= 3:
            raise SystemError("gone")
        return bool(engine.sequences)

    engine.has_work = has_work  # type: ignore[method-assign]
    solver = Solver(SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool())
    result = solver.solve("one")
    solver.close()
    assert endings(result) == ["engine failed"]
    assert solver.solve_or_nothing("two").stopped == "failed"


def test_refused_fork_leaves_one_attempt() -> None:
    engine = Playback([[boxed(1)]])

    def fork(seq: int, n: int, seeds: list[int]) -> list[int]:
        raise ValueError("no forks today")

    engine.fork = fork  # type: ignore[method-assign]
    result, _, _ = solve([[]] * 3, engine)
    assert endings(result) == ["answered", "engine refused", "engine refused"]
    assert result.answer == 1
