"""The record of a tool call and its outcome."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallRecord:
    """A tool call and its outcome.

    Attributes:
        code: code of the call; None if the call could not be read.
        status: "ok", "error", "timeout", "died" or "malformed".
        text: output that the model reads.
        seconds: run time of the cell.
        error: name of the exception, or the status if there is none; None if the call succeeded.
    """

    code: str | None
    status: str
    text: str
    seconds: float = 0.0
    error: str | None = None
