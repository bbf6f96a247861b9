"""The local gateway refuses what would end or spoil a run (1 s)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.solver_cases.kaggle_stubs import FALLBACK, StubSolver, start_session

from eightfold.solver.kaggle import predict_endpoint
from eightfold.solver.kaggle.local_gateway import GatewayError, Row, run_gateway


def test_predictions_that_would_end_or_spoil_a_run_are_refused(tmp_path: Path) -> None:
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


def test_problems_come_in_random_order_and_the_submission_is_written_once(tmp_path: Path) -> None:
    start_session(StubSolver)
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
    assert answers == {"00": 7, "01": FALLBACK, "02": FALLBACK, "03": FALLBACK, "04": 7}
    assert seen != sorted(seen)
    table = pl.read_parquet(tmp_path / "submission.parquet")
    assert table.schema == {"id": pl.String, "answer": pl.Int64}
    assert dict(table.rows()) == answers


@pytest.mark.parametrize("known", [99_999, -1, 10**18, 10**99])
def test_known_answers_may_be_any_integer(known: int, tmp_path: Path) -> None:
    start_session(StubSolver)
    assert run_gateway(predict_endpoint.predict, [Row("1", "p", known)], tmp_path) == {"1": 7}


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    start_session(StubSolver)
    (tmp_path / "submission.parquet").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised:
        run_gateway(predict_endpoint.predict, [Row("1", "p", 3)], tmp_path)
    assert raised.value.filename == str(tmp_path / "submission.parquet")
