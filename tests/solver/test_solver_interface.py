"""The Python interface of the solver: settings, threads, progress, interrupts (3 s)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from helpers.solver_cases.scripted_engine import (
    ScriptedEngine,
    ScriptedPool,
    boxed,
    call,
    scripted_solver,
    solve,
)

from eightfold.engine import EngineConfig
from eightfold.solver import Result, Solver, SolverConfig, SolverError
from eightfold.solver.attempts.problem_progress import Progress
from eightfold.solver.chat import ProtocolError


def test_unusable_problems_are_refused_with_the_reason() -> None:
    engine = ScriptedEngine([[boxed(1)]])
    engine.max_context = 2000
    with scripted_solver(engine, attempts=1) as solver:
        with pytest.raises(SolverError, match="empty"):
            solver.solve("  \n")
        with pytest.raises(SolverError, match="must be text, not NoneType"):
            solver.solve(None)  # type: ignore[arg-type]
        with pytest.raises(SolverError, match="seconds must be a number"):
            solver.solve("fine", seconds=float("nan"))
        with pytest.raises(SolverError, match="does not fit"):
            solver.solve("x" * 3000)
        assert solver.solve("fine \udc80").answer == 1, "lone surrogates are replaced"


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": -8}, {"early_stop": -1}, {"time": 0}, {"time": float("nan")},
     {"rule": "best"}, {"top_p": 0}, {"temperature": -1}, {"low": 5, "high": 4}, {"kernels": 0},
     {"turns": -1}, {"seed": -1}, {"max_tokens": 0}, {"output_limit": 3}, {"attempts": "8"},
     {"attempts": 2.5}, {"attempts": True}, {"time": None}, {"low": "a"}, {"max_tokens": 1.5},
     {"problems": 0}, {"reasoning_effort": "extreme"}],
)  # fmt: skip
def test_error_message_names_the_wrong_setting(bad: dict[str, Any]) -> None:
    with pytest.raises(SolverError, match=next(iter(bad))):
        SolverConfig(**bad)


def test_a_reasoning_effort_is_refused_for_models_without() -> None:
    with pytest.raises(ProtocolError, match="format gemma4 have no reasoning efforts"):
        scripted_solver(ScriptedEngine([]), reasoning_effort="low")


def test_engine_has_room_for_attempts_times_problems() -> None:
    assert SolverConfig(attempts=100, problems=100).running == 64
    for config, running in (
        (SolverConfig(attempts=3, problems=2), 6),
        (SolverConfig(engine=EngineConfig(max_running=5)), 5),
    ):
        with Solver(config, pool=ScriptedPool()) as solver:
            assert solver.loop.engine.config.max_running == running


def test_problems_in_several_threads_share_the_engine() -> None:
    engine = ScriptedEngine([])
    engine.next_script = lambda: iter([call("a"), boxed(6)])  # type: ignore[method-assign]
    results: list[Result] = []
    with scripted_solver(engine, attempts=3, early_stop=0) as solver:
        threads = [
            threading.Thread(target=lambda i=i: results.append(solver.solve(f"problem {i}")))
            for i in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [result.answer for result in results] == [6] * 5
    assert len({record["seed"] for result in results for record in result.attempts}) == 15


def test_progress_and_ended_attempts_are_reported() -> None:
    seen: list[Progress] = []
    ended: list[dict[str, Any]] = []
    engine = ScriptedEngine([["x" * 700 + boxed(1)], [boxed(1)]])
    with scripted_solver(engine, attempts=2, early_stop=0) as solver:
        solver.solve("p", on_progress=seen.append, on_attempt=ended.append, interval=0.01)
    assert [record["attempt"] for record in ended] == [1, 0]
    assert seen[-1].votes == {1: 2}
    assert seen[-1].states == {"answered": 2}
    assert [progress.tokens for progress in seen] == sorted(progress.tokens for progress in seen)


def test_interrupt_ends_the_problem_and_propagates() -> None:
    engine = ScriptedEngine([["x" * 1_000_000]])
    ended: list[dict[str, Any]] = []

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with scripted_solver(engine, attempts=1) as solver:
        with pytest.raises(KeyboardInterrupt):
            solver.solve("p", on_progress=interrupt, on_attempt=ended.append, interval=0.01)
        solver.loop.call(lambda: None)
        assert engine.sequences[0].status == "finished"
    assert [record["ending"] for record in ended] == ["interrupted"]


def test_works_inside_a_running_event_loop() -> None:
    async def notebook() -> Result:
        return solve([[call("a"), boxed(42)]])[0]

    assert asyncio.run(notebook()).answer == 42
