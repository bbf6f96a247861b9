"""A local stand-in for the competition's gateway: the same calls, stricter checks, no network.

It passes one problem at a time, in random order, as a one-row Series per column. It expects a
one-row frame back, and writes submission.parquet only after the last problem.
"""

from __future__ import annotations

import inspect
import io
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.common.file_errors import path_in_errors

from ..answers.boxed_answer import MAX_ANSWER, MIN_ANSWER

MESSAGE_BYTES = 8000  # of an exception's text that the real transport carries
SHOWN_CHARACTERS = 300  # of an exception's text that our error message shows


class GatewayError(RuntimeError):
    """Something for which the real gateway would end a run; the message is one sentence."""


@dataclass(frozen=True)
class Row:
    """A row of the file of problems; `answer` is None if it is not known."""

    id: str
    problem: object
    answer: int | None = None


def run_gateway(
    predict: Callable[..., Any],
    rows: Iterable[Row],
    folder: str | Path = ".",
    *,
    seed: int | None = None,
    on_answer: Callable[[Row, int], None] | None = None,
) -> dict[str, int]:
    """Ask for the answer to every row and write submission.parquet into `folder`.

    If any answer is known, `predict` gets the known answers as a third Series, as in the
    competition's run over a file with that column.

    Args:
        predict: the endpoint.
        rows: the problems; their ids must be unique.
        folder: where submission.parquet is written.
        seed: seed of the order; None takes another order each time.
        on_answer: called after each answer.

    Returns:
        Answers by id, in the order of `rows`.

    Raises:
        GatewayError: a prediction would end the run. Nothing is written.
    """
    check_endpoint(predict)
    rows = list(rows)
    if len({row.id for row in rows}) != len(rows):
        raise GatewayError("The ids of the problems are not unique.")
    with_answers = any(row.answer is not None for row in rows)
    order = list(rows)
    random.Random(seed).shuffle(order)
    answers: dict[str, int] = {}
    for row in order:
        answers[row.id] = _ask(predict, row, with_answers)
        if on_answer is not None:
            on_answer(row, answers[row.id])
    in_order = {row.id: answers[row.id] for row in rows}
    _write_submission(in_order, Path(folder))
    return in_order


def check_endpoint(predict: Callable[..., Any]) -> None:
    """Refuse what the server refuses: anything but a plain function named `predict`.

    Raises:
        GatewayError: it is something else.
    """
    if not inspect.isfunction(predict) or predict.__name__ != "predict":
        raise GatewayError("The endpoint must be a plain function named predict.")


def check_prediction(frame: Any) -> int:
    """Return the answer in a frame that `predict` returned.

    This is stricter than the real gateway, which accepts floats, text and answers of any size.

    Raises:
        GatewayError: the frame does not have exactly one row, has no column `answer` or an
            unexpected one, or the answer is not an integer in the competition's range.
    """
    import polars as pl

    if type(frame).__module__.partition(".")[0] == "pandas":
        try:
            frame = pl.from_pandas(frame)
        except Exception as error:  # pandas and polars raise errors of many kinds
            raise GatewayError(f"predict's pandas object cannot be read: {error}.") from error
    if not isinstance(frame, pl.DataFrame):
        raise GatewayError(f"predict returned {type(frame).__name__}, not a DataFrame.")
    if frame.height != 1:
        raise GatewayError(f"predict returned {frame.height} rows, not one.")
    if "answer" not in frame.columns or not set(frame.columns) <= {"id", "answer"}:
        raise GatewayError(f"predict returned the columns {frame.columns}, not id and answer.")
    if not frame.schema["answer"].is_integer():
        raise GatewayError(f"The answer is {frame.schema['answer']}, not an integer.")
    value = frame["answer"].item(0)
    if value is None or not MIN_ANSWER <= value <= MAX_ANSWER:
        raise GatewayError(f"The answer {value} is not in {MIN_ANSWER}..{MAX_ANSWER}.")
    return int(value)


def _ask(predict: Callable[..., Any], row: Row, with_answers: bool) -> int:
    """Return the endpoint's answer to one problem."""
    import polars as pl

    series = [pl.Series("id", [row.id]), pl.Series("problem", [row.problem], strict=False)]
    if with_answers:
        # A known answer that does not fit 64 bits becomes null: no prediction could match it.
        series.append(pl.Series("answer", [row.answer], dtype=pl.Int64, strict=False))
    try:
        frame = predict(*series)
    except Exception as error:
        text = str(error)
        too_long = len(text.encode()) > MESSAGE_BYTES
        detail = "a message too long to be carried" if too_long else text[:SHOWN_CHARACTERS]
        raise GatewayError(f"predict raised {type(error).__name__}: {detail}.") from error
    return check_prediction(frame)


def _write_submission(answers: dict[str, int], folder: Path) -> None:
    import polars as pl

    columns = {"id": list(answers), "answer": list(answers.values())}
    frame = pl.DataFrame(columns, schema={"id": pl.String, "answer": pl.Int64})
    content = io.BytesIO()
    frame.write_parquet(content)  # polars' own errors of a full disk name no file
    path = folder / "submission.parquet"
    with path_in_errors(path):
        path.write_bytes(content.getvalue())
