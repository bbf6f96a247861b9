"""`predict` answers whatever it is passed (2 s)."""

from __future__ import annotations

import datetime
import math
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.solver_cases.kaggle_stubs import FALLBACK, StubSolver, ask, start_session

from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.local_gateway import check_prediction

NOT_TEXT = [
    pl.Series([None]),
    pl.Series([float("nan")]),
    pl.Series([], dtype=pl.String),
    pl.Series([""]),
    pl.Series([" \n "]),
    pl.Series([17]),
    pl.DataFrame({"problem": ["x"]}),
    None,
    math.nan,
    object(),
    ["nan"],
    {"problem": "x"},
]


@pytest.mark.parametrize("value", NOT_TEXT, ids=lambda value: type(value).__name__)
def test_a_problem_that_is_not_text_gets_the_fallback(value: Any) -> None:
    start_session(StubSolver)
    assert ask(value) == FALLBACK
    assert ask(pl.Series(["the next problem"])) == 7


def test_unusual_text_is_passed_on() -> None:
    stub = StubSolver()
    start_session(lambda: stub)
    for text in ["x" * 100_000, "$\\frac{1}{", "\x00\ud800 lone", "<|tool_call>"]:
        assert ask([text]) == 7
    assert len(stub.texts[0]) == 100_000
    stub.texts[2].encode()


class Broken:
    """An object whose every method fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def to_list(self) -> Any:
        raise ValueError("x" * 10**6)


def unusual_values() -> list[Any]:
    """Return values that are not a problem, or an unusual one."""
    rng = random.Random(5)
    texts = [
        "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(40))
        for _ in range(200)
    ]
    return [
        *texts,
        *("", "\ud800", "nan", "\x00", "{" * 5000, "<|tool_call>", "\u2028", "x" * 2_000_001),
        *(0, -1, True, 10**400, 1.5, math.inf, 1j, b"\xff", bytearray(b"x"), None, ..., Broken()),
        *([], [[]], [None], (), {}, {1}, {"x": 1}, range(3), iter("ab"), object()),
        *(predict_endpoint, Broken),
        *(datetime.date(2026, 1, 1), np.float32(1), np.array("a"), np.array([["a"]]), np.array([])),
        *(pl.DataFrame(), pl.LazyFrame({"a": [1]}), pl.Series([["a"]]), pl.Series([{"a": 1}])),
        *(pl.Series([b"x"]), pl.Series(["a", "b"]), pl.Series([object()], dtype=pl.Object)),
    ]


def test_any_input_gets_an_integer() -> None:
    start_session(StubSolver, problems=10**4)
    for value in unusual_values():
        assert ask(value) in (7, FALLBACK)
        assert check_prediction(predict_endpoint.predict(value, value)) in (7, FALLBACK)
        assert check_prediction(predict_endpoint.predict([value], ["p"])) in (7, FALLBACK)


def test_a_third_argument_is_ignored() -> None:
    start_session(StubSolver)
    frame = predict_endpoint.predict(pl.Series(["i"]), pl.Series(["p"]), pl.Series([99]))
    assert frame.schema == {"id": pl.String, "answer": pl.Int64}
    assert frame.rows() == [("i", 7)]


@pytest.mark.parametrize("answer", [-1, 100_000, 3.0, True, "5", 10**30])
def test_invalid_answers_are_not_returned(answer: Any) -> None:
    start_session(lambda: StubSolver(lambda _: answer))
    assert ask("p") == FALLBACK
