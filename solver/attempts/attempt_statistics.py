"""The statistics of an attempt, from which votes and scores are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENTROPY_TAIL = 256
"""Number of tokens at the end of an attempt whose entropy counts."""


@dataclass(frozen=True)
class AttemptStatistics:
    """An attempt's answer and the evidence for it.

    Attributes:
        index: number of the attempt, from 0.
        answer: the attempt's answer, or None if it has none.
        calls: number of tool calls, malformed ones included.
        errors: number of calls that failed: exception, timeout, death of the kernel or malformed.
        entropy: mean entropy of the last `ENTROPY_TAIL` tokens, in nats; None if not recorded.
        ended: seconds from the problem's start to the attempt's end.
        code: characters of code in its calls.
    """

    index: int
    answer: int | None
    calls: int = 0
    errors: int = 0
    entropy: float | None = None
    ended: float = 0.0
    code: int = 0

    @property
    def error_rate(self) -> float:
        """Errors per call, from 0 to 1; 0 if there was no call."""
        return self.errors / self.calls if self.calls else 0.0


def tail_entropy(entropies: Sequence[float], tail: int = ENTROPY_TAIL) -> float | None:
    """Return the mean of the last `tail` entropies, in nats, or None if there are none."""
    last = entropies[-tail:]
    return sum(last) / len(last) if last else None
