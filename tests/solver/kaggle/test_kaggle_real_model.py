"""A session with the real solver and the bundled model, rebuilt after real faults. About 30 s."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from eightfold.engine.loading import file_preload
from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.local_gateway import check_prediction
from eightfold.solver.model_defaults import bundled_model
from eightfold.solver.solver import Solver
from eightfold.solver.time_budget import BudgetConfig

PROBLEM = "What is the value of $d(23326)$, where $d(n)$ is the number of divisors of $n$?"


def ask(problem: Any, id_: str = "good") -> int:
    return check_prediction(
        predict_endpoint.predict(pl.Series([id_]), pl.Series([problem], strict=False))
    )


def fail(*_: Any, **__: Any) -> Any:
    raise MemoryError("CUDA out of memory")


# The faults are set without monkeypatch, which would keep a reference to the engine.


def fail_two_steps(solver: Solver) -> None:
    engine, count = solver.loop.engine, []
    real = engine.step

    def step() -> Any:
        count.append(1)
        if len(count) <= 2:
            fail()
        engine.step = real
        return real()

    engine.step = step


def fail_every_step(solver: Solver) -> None:
    solver.loop.engine.step = fail


def fail_every_lease(solver: Solver) -> None:
    solver.pool.lease = fail


def end_engine_thread(solver: Solver) -> None:
    solver.loop.post(fail)
    solver.loop._thread.join(60)
    assert not solver.alive


FAULTS: dict[Callable[[Solver], None], bool] = {
    fail_two_steps: False,
    fail_every_step: True,
    fail_every_lease: True,
    end_engine_thread: True,
}
"""Faults of the real solver; True if it must be rebuilt."""


@pytest.mark.slow
def test_a_session_survives_faults_of_the_real_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[Any] = []
    held: list[int] = []

    def make() -> Solver:
        held.append(sum(engine() is not None for engine in engines))
        solver = Solver(SolverConfig(attempts=2, early_stop=1, kernels=4, seed=1))
        engines.append(weakref.ref(solver.loop.engine))
        return solver

    log = tmp_path / "log.jsonl"
    config = predict_endpoint.KaggleConfig(fallback=123, log=log, budget=BudgetConfig(cap=120))
    run = predict_endpoint.start(config, make)
    assert ask(PROBLEM) == 8
    for odd in ("x " * 50_000, "", math.nan, None):  # the first is longer than the context
        assert ask(odd, "none") == 123
        assert ask(PROBLEM) == 8
    for text in ("$\\frac{1}{", "\x00 \u202e", "<|tool_call>call:python{code:<turn|>", "\\boxed{5"):
        ask(text, "odd")  # any integer
        assert ask(PROBLEM) == 8
    run.rebuilds = 0
    rebuilt = 0
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's keeps frames
    for cause_fault, must_rebuild in FAULTS.items():
        cause_fault(run.solver)
        assert ask(PROBLEM) == 8, cause_fault
        assert ask(PROBLEM) == 8, cause_fault
        rebuilt += must_rebuild
        assert run.rebuilds == rebuilt, cause_fault
    assert held == [0] * len(held), "the old model is freed before another loads"
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    assert {note["fallback"] for note in notes if note["id"] == "good"} == {False}
    assert [note["fallback"] for note in notes if note["id"] == "none"] == [True] * 4


def test_the_solver_takes_over_a_preload_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Path] = []
    real = file_preload.list_files

    def list_files(folder: Path) -> Any:
        walked.append(folder)
        return real(folder)

    monkeypatch.setattr(file_preload, "list_files", list_files)
    config = predict_endpoint.KaggleConfig(
        SolverConfig(model=bundled_model(), attempts=1, kernels=1)
    )
    reading = predict_endpoint.preload(config)
    run = predict_endpoint.start(config, reading=reading)
    run.loader.join(300)
    assert run.solver is not None
    assert walked == [bundled_model()], "the files are walked once"
    assert reading.wait(0), "the preload has ended"


def test_a_preload_ends_with_a_solver_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\0")
    (tmp_path / "tokenizer.json").write_text("{}")
    stopped: list[bool] = []

    class Reading:
        def stop(self) -> None:
            stopped.append(True)

    with pytest.raises(SolverError, match="cannot be used: Unrecognized model"):
        Solver(SolverConfig(model=tmp_path, kernels=1), reading=Reading())
    assert stopped
