"""A stand-in for the competition's gateway: the same calls, at least the same checks, no network.

One problem at a time in random order, a one-row Series for each column, a one-row frame back, and
submission.parquet after the last problem only.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answers.boxed_answer import HIGH, LOW

MESSAGE_LIMIT = 8000  # bytes of an exception's text that the real transport carries


class GatewayError(RuntimeError):
    """What the real gateway would end a run for; the message is one sentence."""


@dataclass(frozen=True)
class Row:
    """A row of the file; `answer` None where it is not known."""

    id: str
    problem: Any
    answer: int | None = None


def check_endpoint(predict: Callable[..., Any]) -> None:
    """Refuses what the server refuses: anything but a plain function named `predict`.

    Raises:
        GatewayError: it is something else.
    """
    if not inspect.isfunction(predict) or predict.__name__ != "predict":
        raise GatewayError("The endpoint must be a plain function named predict.")


def check_prediction(frame: Any) -> int:
    """The answer in a returned frame.

    Stricter than the real one, which takes floats, text and any size without a word.

    Raises:
        GatewayError: not one row, no column `answer`, another column, no integer, out of range.
    """
    import polars as pl

    if type(frame).__module__.partition(".")[0] == "pandas":
        try:
            frame = pl.from_pandas(frame)
        except Exception as error:  # whatever pandas and polars find odd
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
    if value is None or not LOW <= value <= HIGH:
        raise GatewayError(f"The answer {value} is not in {LOW}..{HIGH}.")
    return int(value)


def run_gateway(
    predict: Callable[..., Any],
    rows: Iterable[Row],
    folder: str | Path = ".",
    *,
    seed: int | None = None,
    on_answer: Callable[[Row, int], None] | None = None,
) -> dict[str, int]:
    """Asks for every row's answer and writes submission.parquet into `folder`.

    Where answers are known they are passed as a third Series, as a file with that column does.

    Args:
        seed: of the order; None: another order each time.
        on_answer: called after each answer.

    Returns:
        Answers by id, in the file's order.

    Raises:
        GatewayError: a prediction would end the run; nothing is written.
    """
    import polars as pl

    check_endpoint(predict)
    rows = list(rows)
    if len({row.id for row in rows}) != len(rows):
        raise GatewayError("The ids of the problems are not unique.")
    known = any(row.answer is not None for row in rows)
    order = list(rows)
    random.Random(seed).shuffle(order)
    answers: dict[str, int] = {}
    for row in order:
        series = [pl.Series("id", [row.id]), pl.Series("problem", [row.problem], strict=False)]
        if known:
            # An answer that no 64 bits hold is none that could be right.
            series.append(pl.Series("answer", [row.answer], dtype=pl.Int64, strict=False))
        try:
            frame = predict(*series)
        except Exception as error:
            text = str(error)
            lost = len(text.encode()) > MESSAGE_LIMIT
            detail = "a message too long to be carried" if lost else text[:300]
            raise GatewayError(f"predict raised {type(error).__name__}: {detail}.") from error
        answers[row.id] = check_prediction(frame)
        if on_answer is not None:
            on_answer(row, answers[row.id])
    ids = [row.id for row in rows]
    table = {"id": ids, "answer": [answers[id_] for id_ in ids]}
    frame = pl.DataFrame(table, schema={"id": pl.String, "answer": pl.Int64})
    frame.write_parquet(Path(folder) / "submission.parquet")
    return {id_: answers[id_] for id_ in ids}
