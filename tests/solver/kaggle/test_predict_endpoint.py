"""Settings that would break `predict`, and faults around it. Stubs in the solver's place; 15 s."""

from __future__ import annotations

import io
import json
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from eightfold.common.error_text import one_line
from eightfold.solver import SolverError, solver
from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.local_gateway import Row, run_gateway
from eightfold.solver.solver import Result
from eightfold.solver.time_budget import Budget, BudgetConfig


class Stub:
    """Solves each problem with what `act` returns."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.alive = True

    def solve(self, text: str, **_: Any) -> Result:
        return Result(self.act() if self.act else 7, {}, (), 0.1, 1, 0, 0, "all ended")

    def close(self) -> None:
        self.alive = False


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    predict_endpoint.stop()


def ask(id_: Any = "a") -> int:
    return int(predict_endpoint.predict(id_, pl.Series(["p"]))["answer"].item(0))


@pytest.mark.parametrize("fallback", [1.5, 0.0, "5", None, True, np.int64(5), [1], math.nan, -1])
def test_a_fallback_that_could_not_be_returned_is_refused(fallback: Any) -> None:
    with pytest.raises(SolverError, match="fallback must be an integer from 0 to 99999, not"):
        predict_endpoint.KaggleConfig(fallback=fallback)


@pytest.mark.parametrize("problems", [0, "50", 1.5, True, None, math.nan])
def test_problems_must_be_a_number_of_them(problems: Any) -> None:
    with pytest.raises(SolverError, match="problems must be an integer of at least 1, not"):
        predict_endpoint.KaggleConfig(problems=problems)


class MuteError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_what_cannot_be_printed_costs_neither_answer_nor_retry(tmp_path: Path) -> None:
    def fail() -> int:
        raise MuteError

    assert one_line(MuteError()) == "MuteError: it cannot be printed"
    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub(None if made else fail))
        return made[-1]

    predict_endpoint.start(predict_endpoint.KaggleConfig(fallback=123, log=tmp_path / "log"), make)
    assert ask() == 7, "it is tried again on a new solver"
    assert ask(MuteError()) == 7, "the problem is there, whatever its id"
    last = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert (last["id"], last["fallback"]) == ("", False)


def test_a_solver_that_hung_does_no_harm_when_it_ends_at_last() -> None:
    late, ended = threading.Event(), threading.Event()

    def hang() -> int:
        late.wait(60)
        threading.Thread(target=after, args=(threading.current_thread(),)).start()
        raise RuntimeError("closed meanwhile")

    def after(worker: threading.Thread) -> None:
        worker.join(60)
        ended.set()

    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub(None if made else hang))
        return made[-1]

    short_time = BudgetConfig(limit=10**9, floor=8, cap=8)
    run = predict_endpoint.start(
        predict_endpoint.KaggleConfig(fallback=123, budget=short_time), make
    )
    assert ask() == 123
    run.budget = Budget(BudgetConfig(limit=10**9))  # the others are not to hurry
    assert ask() == 7
    late.set()
    assert ended.wait(60)
    assert ask() == 7
    assert len(made) == 2, "the one in its place is not to be made anew"


def test_a_solver_is_made_where_nobody_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    class Real(Stub):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()
            self.loop = SimpleNamespace(engine=SimpleNamespace(table=lambda: "weights 1 GiB"))

    monkeypatch.setattr(solver, "Solver", Real)
    monkeypatch.setattr(sys, "stderr", Closed())
    predict_endpoint.start(predict_endpoint.KaggleConfig(fallback=123))
    assert ask() == 7


@pytest.mark.parametrize("known", [99_999, -1, 10**18, 10**99])
def test_the_gateway_takes_any_known_answer(known: int, tmp_path: Path) -> None:
    predict_endpoint.start(predict_endpoint.KaggleConfig(), Stub)
    assert run_gateway(predict_endpoint.predict, [Row("1", "p", known)], tmp_path) == {"1": 7}
