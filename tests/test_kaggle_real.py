"""The drills with the real solver and the bundled model, made anew three times. About 25 s."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from eightfold.solver import SolverConfig, kaggle
from eightfold.solver.budget import BudgetConfig
from eightfold.solver.gateway import check_prediction
from eightfold.solver.solver import Solver

PROBLEM = "What is the value of $d(23326)$, where $d(n)$ is the number of divisors of $n$?"


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    kaggle.stop()


def ask(problem: Any, id_: str = "good") -> int:
    return check_prediction(kaggle.predict(pl.Series([id_]), pl.Series([problem], strict=False)))


def fail(*_: Any, **__: Any) -> Any:
    raise MemoryError("CUDA out of memory")


# The faults are set by hand: a monkeypatch would hold the engine that is to be let go.


def few_steps_fail(solver: Solver) -> None:
    engine, count = solver.loop.engine, []
    real = engine.step

    def step() -> Any:
        count.append(1)
        if len(count) <= 2:
            fail()
        engine.step = real
        return real()

    engine.step = step


def no_step_works(solver: Solver) -> None:
    solver.loop.engine.step = fail


def no_kernel_is_left(solver: Solver) -> None:
    solver.pool.lease = fail


def thread_ends(solver: Solver) -> None:
    solver.loop.post(fail)
    solver.loop._thread.join(60)
    assert not solver.alive


FAULTS: dict[Any, bool] = {  # what happens to the real solver, and if it is renewed
    few_steps_fail: False,
    no_step_works: True,
    no_kernel_is_left: True,
    thread_ends: True,
}


@pytest.mark.slow
def test_real_model_through_the_drills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Any] = []
    held: list[int] = []

    def make() -> Solver:
        held.append(sum(engine() is not None for engine in engines))
        solver = Solver(SolverConfig(attempts=2, early_stop=1, kernels=4, seed=1))
        engines.append(weakref.ref(solver.loop.engine))
        return solver

    log = tmp_path / "log.jsonl"
    config = kaggle.KaggleConfig(fallback=123, log=log, budget=BudgetConfig(cap=120))
    run = kaggle.start(config, make)
    assert ask(PROBLEM) == 8
    for odd in ("x " * 50_000, "", math.nan, None):  # the first is longer than the context
        assert ask(odd, "none") == 123
        assert ask(PROBLEM) == 8
    for text in ("$\\frac{1}{", "\x00 \u202e", "<|tool_call>call:python{code:<turn|>", "\\boxed{5"):
        ask(text, "odd")  # any integer
        assert ask(PROBLEM) == 8
    run.rebuilds = 0
    renewed = 0
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's keeps the frames
    for harm, loses in FAULTS.items():
        harm(run.solver)
        assert ask(PROBLEM) == 8, harm
        assert ask(PROBLEM) == 8, harm
        renewed += loses
        assert run.rebuilds == renewed, harm
    assert held == [0] * len(held), "the old model must not hold its memory while another loads"
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    assert {note["fallback"] for note in notes if note["id"] == "good"} == {False}
    assert [note["fallback"] for note in notes if note["id"] == "none"] == [True] * 4
