"""What the machine, and not the model, did to a problem: typed, and told apart in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ..attempts.attempt import MACHINE_ENDINGS, Ending

RETRIES = 3
"""Times that a problem is solved again if the machine, and not the model, failed at it."""


class Cause(StrEnum):
    """The part of the machine that failed."""

    SANDBOX = "sandbox failed"
    ENGINE = "engine failed"
    MEMORY = "GPU memory exhausted"
    WORKER = "worker lost"
    NODE = "node lost"
    HEAD = "head lost"
    OVERDUE = "worker did not answer"


CAUSES = {
    Ending.SANDBOX: Cause.SANDBOX,
    Ending.ENGINE: Cause.ENGINE,
    Ending.MEMORY: Cause.MEMORY,
}
"""The causes that endings of attempts amount to."""


@dataclass(frozen=True)
class MachineFailure:
    """One failure at one problem.

    Attributes:
        cause: the part that failed.
        detail: what it said.
        worker: number of the worker, or None if there are no workers.
        node: address of the worker's node, or "".
        shared: True if the worker solved other problems too, each of which may be the reason.
    """

    cause: Cause
    detail: str
    worker: int | None = None
    node: str = ""
    shared: bool = False

    def record(self) -> dict[str, Any]:
        """Return the failure as an object that JSON can encode."""
        return {**asdict(self), "cause": str(self.cause)}


def lost_attempts(attempts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of the attempts that the machine failed."""
    return [one for one in attempts if one["ending"] in MACHINE_ENDINGS]


def attempt_failure(
    attempts: Sequence[dict[str, Any]], worker: int | None = None, node: str = ""
) -> MachineFailure | None:
    """Return the failure that cost a problem attempts, or None if it lost none."""
    lost = lost_attempts(attempts)
    if not lost:
        return None
    return MachineFailure(CAUSES[Ending(lost[0]["ending"])], lost[0]["detail"], worker, node)
