"""The Python interface: settings, threads, progress, interrupts (3 s)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from helpers.scripted_engine import TOKENIZER, Playback, Pool, boxed, call, solve

from eightfold.engine import EngineConfig
from eightfold.solver import Solver, SolverConfig, SolverError


def test_bad_problems_are_one_sentence() -> None:
    engine = Playback([[boxed(1)]])
    engine.max_context = 2000
    with Solver(
        SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        with pytest.raises(SolverError, match="empty"):
            solver.solve("  \n")
        with pytest.raises(SolverError, match="must be text, not NoneType"):
            solver.solve(None)  # type: ignore[arg-type]
        with pytest.raises(SolverError, match="seconds must be a number"):
            solver.solve("fine", seconds=float("nan"))
        with pytest.raises(SolverError, match="does not fit"):
            solver.solve("x" * 3000)
        assert solver.solve("fine \udc80").answer == 1, "lone surrogates are no fault"


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": -8}, {"early_stop": -1}, {"time": 0}, {"time": float("nan")},
     {"rule": "best"}, {"top_p": 0}, {"temperature": -1}, {"low": 5, "high": 4}, {"kernels": 0},
     {"turns": -1}, {"seed": -1}, {"max_tokens": 0}, {"output_limit": 3}, {"attempts": "8"},
     {"attempts": 2.5}, {"attempts": True}, {"time": None}, {"low": "a"}, {"max_tokens": 1.5},
     {"problems": 0}],
)  # fmt: skip
def test_bad_settings_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(SolverError, match=next(iter(bad))):
        SolverConfig(**bad)


def test_engine_is_made_for_attempts_times_problems() -> None:
    assert SolverConfig(attempts=100, problems=100).running == 64
    for config, running in (
        (SolverConfig(attempts=3, problems=2), 6),
        (SolverConfig(engine=EngineConfig(max_running=5)), 5),
    ):
        with Solver(config, pool=Pool()) as solver:
            assert solver.loop.engine.config.max_running == running


def test_several_problems_share_the_engine() -> None:
    engine = Playback([])
    engine._next = lambda: iter([call("a"), boxed(6)])  # type: ignore[method-assign]
    pool = Pool()
    results: list[Any] = []
    config = SolverConfig(attempts=3, early_stop=0)
    with Solver(config, engine=engine, tokenizer=TOKENIZER, pool=pool) as solver:
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


def test_progress_and_attempts_are_reported() -> None:
    seen: list[Any] = []
    ended: list[Any] = []
    engine = Playback([["x" * 700 + boxed(1)], [boxed(1)]])
    with Solver(
        SolverConfig(attempts=2, early_stop=0), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        solver.solve("p", on_progress=seen.append, on_attempt=ended.append, interval=0.01)
    assert [record["attempt"] for record in ended] == [1, 0]
    assert seen[-1].votes == {1: 2}
    assert seen[-1].states == {"answered": 2}
    assert [progress.tokens for progress in seen] == sorted(progress.tokens for progress in seen)


def test_interrupt_ends_the_problem_and_is_passed_on() -> None:
    engine = Playback([["x" * 1_000_000]])
    ended: list[Any] = []

    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with Solver(
        SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        with pytest.raises(KeyboardInterrupt):
            solver.solve("p", on_progress=interrupt, on_attempt=ended.append, interval=0.01)
        solver.loop.call(lambda: None)
        assert engine.sequences[0].status == "finished"
    assert [record["ending"] for record in ended] == ["interrupted"]


def test_works_where_an_event_loop_runs() -> None:
    async def notebook() -> Any:
        return solve([[call("a"), boxed(42)]])[0]

    assert asyncio.run(notebook()).answer == 42
