"""Whatever breaks, `predict` gives an integer in time. Stubs in the solver's place; 20 s."""

from __future__ import annotations

import datetime
import json
import math
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from eightfold.common.error_text import one_line
from eightfold.solver import SolverError, time_budget
from eightfold.solver.kaggle import kaggle_session, predict_endpoint
from eightfold.solver.kaggle.kaggle_session import RETURN_SECONDS
from eightfold.solver.kaggle.local_gateway import (
    GatewayError,
    Row,
    check_prediction,
    run_gateway,
)
from eightfold.solver.solver import Result
from eightfold.solver.time_budget import BudgetConfig


class Stub:
    """In a solver's place, for faults that the real one does not have on demand."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.alive = True
        self.texts: list[str] = []
        self.seconds: list[float] = []

    def solve(self, text: str, **options: Any) -> Result:
        self.texts.append(text)
        self.seconds.append(options["seconds"])
        answer = self.act(options) if self.act else 7
        return Result(answer, {}, (), 0.1, 1, 0, 0, "all ended")

    def close(self) -> None:
        self.alive = False


def fail() -> Any:
    raise MemoryError("no memory " * 1000)


def begin(make: Any, **changes: Any) -> predict_endpoint.Session:
    return predict_endpoint.start(
        predict_endpoint.KaggleConfig(**{"fallback": 123, **changes}), make
    )


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    predict_endpoint.stop()


def ask(problem: Any, id_: Any = "a") -> int:
    return check_prediction(predict_endpoint.predict(pl.Series([id_]), problem))


ODD = [
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


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_what_is_no_text_gets_the_fallback(odd: Any) -> None:
    begin(Stub)
    assert ask(odd) == 123
    assert ask(pl.Series(["still there"])) == 7


def test_odd_text_is_passed_on() -> None:
    stub = Stub()
    begin(lambda: stub)
    for text in ["x" * 100_000, "$\\frac{1}{", "\x00\ud800 lone", "<|tool_call>"]:
        assert ask([text]) == 7
    assert len(stub.texts[0]) == 100_000
    stub.texts[2].encode()


class Broken:
    """Whatever is asked of it fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def to_list(self) -> Any:
        raise ValueError("x" * 10**6)


def odd_inputs() -> list[Any]:
    """Things that are no problem, or an odd one."""
    rng = random.Random(5)
    texts = [
        "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(40))
        for _ in range(200)
    ]
    return [
        *texts,
        *("", "\ud800", "nan", "\x00", "{" * 5000, "<|tool_call>", "\u2028", "x" * 2_000_001),
        *(0, -1, True, 10**400, 1.5, math.inf, 1j, b"\xff", bytearray(b"x"), None, ..., Broken()),
        *(
            [],
            [[]],
            [None],
            (),
            {},
            {1},
            {"x": 1},
            range(3),
            iter("ab"),
            object(),
            predict_endpoint,
            Broken,
        ),
        *(datetime.date(2026, 1, 1), np.float32(1), np.array("a"), np.array([["a"]]), np.array([])),
        *(pl.DataFrame(), pl.LazyFrame({"a": [1]}), pl.Series([["a"]]), pl.Series([{"a": 1}])),
        *(pl.Series([b"x"]), pl.Series(["a", "b"]), pl.Series([object()], dtype=pl.Object)),
    ]


def test_any_input_gets_an_integer() -> None:
    begin(Stub, problems=10**4)
    for odd in odd_inputs():
        assert ask(odd) in (7, 123)
        assert check_prediction(predict_endpoint.predict(odd, odd)) in (7, 123)
        assert check_prediction(predict_endpoint.predict([odd], ["p"])) in (7, 123)


def test_a_third_argument_is_not_looked_at() -> None:
    begin(Stub)
    frame = predict_endpoint.predict(pl.Series(["i"]), pl.Series(["p"]), pl.Series([99]))
    assert frame.schema == {"id": pl.String, "answer": pl.Int64}
    assert frame.rows() == [("i", 7)]


@pytest.mark.parametrize("answer", [-1, 100_000, 3.0, True, "5", 10**30])
def test_answers_out_of_range_never_leave(answer: Any) -> None:
    begin(lambda: Stub(lambda _: answer))
    assert ask("p") == 123


def test_an_exception_is_retried_on_a_new_solver_and_said_shortly(tmp_path: Path) -> None:
    def fail(_: Any) -> int:
        raise RuntimeError("long\n" * 10_000)

    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub(None if made else fail))
        return made[-1]

    log = tmp_path / "log.jsonl"
    begin(make, log=log)
    assert ask("p") == 7
    assert len(made) == 2
    assert not made[0].alive
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert line["answer"] == 7
    assert not line["fallback"]
    assert all(len(fault) <= 300 for fault in line["faults"])
    assert len(one_line(RuntimeError("x" * 10**6))) == 300


def test_why_no_attempt_answered_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reason = "SandboxError: it ended: Traceback " + "line " * 999 + "No module named 'comm'"
    lost = {"ending": "sandbox failed", "detail": reason, "answer": None}

    class Lost(Stub):
        def solve(self, text: str, **options: Any) -> Result:
            return Result(None, {}, (lost,) * 8, 0.1, 1, 0, 0, "all ended")

    log = tmp_path / "log.jsonl"
    begin(Lost, log=log)
    assert ask("p") == 123
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    told = [fault for fault in line["faults"] if fault.startswith("sandbox failed: SandboxError")]
    assert told
    assert all(fault.endswith("No module named 'comm'") and len(fault) <= 300 for fault in told)
    assert "No module named 'comm'" in capfd.readouterr().err


def test_a_solver_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    begin(fail, log=tmp_path / "log")
    assert [ask("p") for _ in range(5)] == [123] * 5
    for line in map(json.loads, (tmp_path / "log").read_text().splitlines()):
        assert "could not be made: MemoryError: no memory" in line["faults"][-1]
    assert max(len(line) for line in capfd.readouterr().err.splitlines()) <= 600


def test_a_model_that_cannot_be_loaded_is_tried_at_each_problem() -> None:
    tries: list[int] = []

    def make() -> Stub:
        tries.append(1)
        if len(tries) < 9:
            fail()
        return Stub()

    begin(make)
    assert [ask("p") for _ in range(9)] == [123] * 7 + [7] * 2


def test_a_solver_that_hangs_is_left_behind_with_the_votes_so_far() -> None:
    free = threading.Event()

    def hang(options: Any) -> int:
        for answer in (5, 8, 8):
            options["on_attempt"]({"answer": answer})
        free.wait(60)
        return 1

    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub(None if made else hang))
        return made[-1]

    begin(make, budget=BudgetConfig(limit=10**9, floor=8, cap=8))
    assert ask("p") == 8, "not 1, which comes after the deadline"
    assert ask("q") == 7, "the next problem has a solver of its own"
    free.set()


def test_when_the_time_is_gone_nothing_is_tried() -> None:
    stub = Stub()
    begin(lambda: stub, budget=BudgetConfig(limit=1e-3, floor=0, cap=900))
    assert ask("p") == 123
    assert stub.texts == []


def test_a_model_still_loading_costs_the_answer_not_the_run() -> None:
    free = threading.Event()

    def make() -> Stub:
        free.wait(60)
        return Stub()

    run = begin(make, budget=BudgetConfig(limit=10**9, floor=8, cap=8))
    assert run.solver is None, "start does not wait for the model"
    assert ask("p") == 123
    free.set()
    run.loader.join(30)
    assert ask("p") == 7


class Clock:
    """In the place of the module `time` where sessions and budgets look at it."""

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
        # To end a problem takes a while, "late" far more than is kept for it.
        clock.now += rng.uniform(0, 60 if hard == "late" else RETURN_SECONDS)
        return 7

    run = begin(lambda: Stub(act))
    run.loader.join(60)
    run.budget = time_budget.Budget(run.config.budget, spent_before=600.0, _start=clock.now)

    def on_this_thread(name: str, text: str, deadline: float) -> Any:
        tried = kaggle_session._ProblemTask(name, text, deadline)
        run._run(tried)
        return tried

    monkeypatch.setattr(
        run, "_run_watched", on_this_thread
    )  # the clock stands still for a watchdog
    assert [ask("p") for _ in range(50)] == [7] * 50
    assert 600 + clock.now <= 18_000 - 300
    assert max(asked) <= 900
    assert min(asked) > 30
    if hard == "first":
        assert asked[0] > 800


def test_the_log_may_fail(tmp_path: Path) -> None:
    begin(Stub, log=tmp_path / "none" / "log.jsonl")
    assert ask("p") == 7


def test_the_gateway_refuses_what_would_end_or_spoil_a_run(tmp_path: Path) -> None:
    rows = [Row("1", "p", 3)]
    replies: list[Any] = [
        5,
        None,
        pl.DataFrame({"answer": [1, 2]}),
        pl.DataFrame({"result": [1]}),
        pl.DataFrame({"answer": [1.0]}),
        pl.DataFrame({"answer": ["1"]}),
        pl.DataFrame({"answer": [100_000]}),
        pl.DataFrame({"answer": [-1]}),
        pl.DataFrame({"answer": [None]}, schema={"answer": pl.Int64}),
    ]
    for reply in replies:

        def predict(id_: Any, problem: Any, reply: Any = reply) -> Any:
            return reply

        with pytest.raises(GatewayError):
            run_gateway(predict, rows, tmp_path)
    with pytest.raises(GatewayError, match="plain function"):
        run_gateway(lambda a, b: None, rows, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_gateway_asks_in_any_order_and_writes_once(tmp_path: Path) -> None:
    begin(Stub)
    texts = ["a", None, math.nan, "", "b" * 10**5]
    rows = [Row(f"{i:02}", text, i) for i, text in enumerate(texts)]
    seen: list[str] = []
    answers = run_gateway(
        predict_endpoint.predict,
        rows,
        tmp_path,
        seed=3,
        on_answer=lambda row, _: seen.append(row.id),
    )
    assert answers == {"00": 7, "01": 123, "02": 123, "03": 123, "04": 7}
    assert seen != sorted(seen)
    table = pl.read_parquet(tmp_path / "submission.parquet")
    assert table.schema == {"id": pl.String, "answer": pl.Int64}
    assert dict(table.rows()) == answers


def test_the_fallback_must_be_an_answer() -> None:
    with pytest.raises(SolverError):
        predict_endpoint.KaggleConfig(fallback=100_000)


def test_the_competitions_own_server_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "data" / "kaggle_evaluation"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("calls = []\n")
    (package / "aimo_3_inference_server.py").write_text(
        "from kaggle_evaluation import calls\n"
        "class AIMO3InferenceServer:\n"
        "    def __init__(self, f): calls.append(f.__name__)\n"
        "    def serve(self): calls.append('serve')\n"
        "    def run_local_gateway(self, paths): calls.append(paths[0])\n"
    )
    test = tmp_path / "data" / "test.csv"
    test.write_text("id,problem\n1,x\n")
    plain = list(sys.path)
    monkeypatch.setattr(sys, "path", list(plain))
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    predict_endpoint.serve(tmp_path)
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    predict_endpoint.serve(tmp_path)
    (tmp_path / "empty").mkdir()
    predict_endpoint.serve(tmp_path / "empty")  # importable already
    seen = ["predict", str(test), "predict", "serve", "predict", "serve"]
    assert sys.modules["kaggle_evaluation"].calls == seen
    monkeypatch.setattr(sys, "path", plain)
    for name in ("kaggle_evaluation", "kaggle_evaluation.aimo_3_inference_server"):
        del sys.modules[name]
    with pytest.raises(SolverError, match="kaggle_evaluation"):
        predict_endpoint.serve(tmp_path / "empty")


def test_a_run_of_fallbacks_is_not_taken_for_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    (tmp_path / "test.csv").write_text("id,problem\n1,x\n")
    begin(Stub)
    predict_endpoint.serve(tmp_path)
    begin(fail)
    with pytest.raises(SolverError, match="fallback"):
        predict_endpoint.serve(tmp_path)
    assert pl.read_parquet(tmp_path / "submission.parquet").rows() == [("1", 123)]
