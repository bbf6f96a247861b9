"""The result of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "error", "timeout", "died"]


@dataclass(frozen=True)
class Execution:
    """The result of one cell, as `Kernel.execute` returns it.

    Attributes:
        status: "ok", "error" (an exception ended it), "timeout" (it was stopped, by its time limit
            or from another thread), or "died" (its process ended).
        text: the text that the model reads.
        seconds: wall-clock time from the request to the answer.
        error: name of the exception that ended the cell, or None.
        killed: True if the process is lost, and all variables with it.
        cancelled: True if `Kernel.interrupt` or `Kernel.kill` stopped the cell.
    """

    status: Status
    text: str
    seconds: float
    error: str | None = None
    killed: bool = False
    cancelled: bool = False
