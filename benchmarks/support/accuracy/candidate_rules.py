"""Rules of the vote that were tried and did not become rules of the solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eightfold.solver.attempts.attempt_statistics import AttemptStatistics
from eightfold.solver.attempts.voting import Rule, RuleScore


@dataclass(frozen=True)
class RecordedAttempt(AttemptStatistics):
    """An attempt as recorded elsewhere, without entropy and times.

    `ended` holds its sampled tokens: attempts at a problem advance together, a token each step.

    Attributes:
        output: tokens of all outputs of its tool.
        timeouts: number of calls that took too long.
    """

    output: int = 0
    timeouts: int = 0

    @staticmethod
    def of(row: dict[str, Any], index: int) -> RecordedAttempt:
        """Return the attempt of a line of the file; `code` counts tokens instead of characters."""
        return RecordedAttempt(
            index,
            row["answer"],
            row["calls"],
            row["errors"],
            None,
            float(row["generated_tokens"]),
            row["code_tokens"],
            row["tool_output_tokens"],
            row["timeouts"],
        )


def weighted(name: str, weight: Callable[[Any], float]) -> Rule:
    """Return a rule that adds a weight for each attempt."""

    def rule(supporters: Sequence[AttemptStatistics]) -> RuleScore:
        return (sum(map(weight, supporters)),)

    rule.__name__ = name
    return rule


def tie_breaker(name: str, value: Callable[[Any], float]) -> Rule:
    """Return a rule that counts votes and decides ties by the larger mean of a value."""

    def rule(supporters: Sequence[AttemptStatistics]) -> RuleScore:
        return (float(len(supporters)), sum(map(value, supporters)) / len(supporters))

    rule.__name__ = name
    return rule


CANDIDATES: tuple[Rule, ...] = (
    weighted("1 - r, r errors per call", lambda one: 1 - one.error_rate),
    weighted("1 / (1 + errors)", lambda one: 1 / (1 + one.errors)),
    weighted("1 / (1 + errors + time-outs)", lambda one: 1 / (1 + one.errors + one.timeouts)),
    weighted("1 / 2 without a call", lambda one: 1.0 if one.calls else 0.5),
    weighted("log(1 + calls)", lambda one: math.log1p(one.calls)),
    weighted("log(1 + calls that ran)", lambda one: math.log1p(one.calls - one.errors)),
    weighted("log(1 + code)", lambda one: math.log1p(one.code)),
    weighted("log(1 + output)", lambda one: math.log1p(one.output)),
    weighted("1 / tokens", lambda one: 1 / max(1.0, one.ended)),
    weighted("1 / sqrt(tokens)", lambda one: max(1.0, one.ended) ** -0.5),
    weighted("tokens", lambda one: one.ended),
    tie_breaker("votes, then fewer tokens", lambda one: -one.ended),
    tie_breaker("votes, then fewer errors", lambda one: -one.error_rate),
    tie_breaker("votes, then more calls", lambda one: one.calls),
    tie_breaker("votes, then more code per token", lambda one: one.code / max(1.0, one.ended)),
    tie_breaker("votes, then smaller answer", lambda one: -float(one.answer)),
)
