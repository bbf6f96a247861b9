"""What is recorded of one attempt and what rules and scores are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TAIL = 256
"""Tokens at the end of an attempt whose entropy counts."""


@dataclass(frozen=True)
class AttemptStatistics:
    """One attempt's vote and what speaks for it.

    Attributes:
        index: number of the attempt, from 0.
        answer: its answer, None where it has none.
        calls: tool calls it made, malformed ones included.
        errors: those that failed: exception, timeout, death of the kernel, malformed.
        entropy: mean entropy of its last `TAIL` tokens in nats; None where it was not recorded.
        ended: seconds from the problem's start to the attempt's end.
    """

    index: int
    answer: int | None
    calls: int = 0
    errors: int = 0
    entropy: float | None = None
    ended: float = 0.0

    @property
    def error_rate(self) -> float:
        """Errors per call, from 0 to 1; 0 where there was no call."""
        return self.errors / self.calls if self.calls else 0.0


def tail_entropy(entropies: Sequence[float], tail: int = TAIL) -> float | None:
    """Mean of the last `tail` entropies, in nats; None where there are none."""
    last = entropies[-tail:]
    return sum(last) / len(last) if last else None
