"""Convert what `predict` receives and returns: one-row Series of anything, and a one-row frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eightfold.common.valid_text import replace_surrogates

if TYPE_CHECKING:
    from polars import DataFrame

MAX_ID_CHARACTERS = 300
MAX_PROBLEM_CHARACTERS = 2_000_000
"""A longer text is not a problem, and would only cost time."""


def single_value(value: Any) -> Any:
    """Return the value in a one-row Series or list, and any other value unchanged."""
    if isinstance(value, (str, bytes)) or value is None:
        return value
    if hasattr(value, "to_list"):
        value = value.to_list()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return value[0] if value else None
    return value


def id_text(value: object) -> str:
    """Return an id as text of limited length.

    An id that cannot be printed becomes "": its problem may still be solved.
    """
    try:
        return replace_surrogates(str(single_value(value))[:MAX_ID_CHARACTERS])
    except Exception:
        return ""


def problem_text(value: object) -> str | None:
    """Return a problem's text, or None if it is missing, NaN, empty, not text, or far too long."""
    value = single_value(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or len(value) > MAX_PROBLEM_CHARACTERS:
        return None
    text = replace_surrogates(value).strip()
    return None if not text or text.lower() == "nan" else text


def answer_frame(id_: str, answer: int) -> DataFrame:
    """Return a one-row frame with the columns id and answer.

    It is a polars frame, or a pandas frame if polars is not installed.
    """
    try:
        import polars as pl

        return pl.DataFrame(
            {"id": [id_], "answer": [answer]}, schema={"id": pl.String, "answer": pl.Int64}
        )
    except ImportError:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pd.DataFrame({"id": [id_], "answer": [answer]})
