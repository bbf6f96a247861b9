"""Curves of a recorded run: scores against the number of attempts and against the early stop."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..attempts.attempt_statistics import AttemptStatistics
from ..attempts.voting import early_stop_reason, vote
from .confidence_intervals import bootstrap_interval
from .run_reader import statistics_of
from .run_scores import CUT_OFF, Run, Score, mean_score, pass_score, vote_score

MAX_SUBSETS = 256
"""Number of sets of k attempts whose votes are averaged; of more sets, so many are drawn."""


@dataclass(frozen=True)
class Mean:
    """A mean with a 95 % bootstrap interval.

    Attributes:
        value: the mean; None without values.
        low, high: the interval; equal to the value if there is only one value.
        count: number of values.
    """

    value: float | None
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class StopPoint:
    """The result that an early stop would have given.

    Attributes:
        agree: number of equal answers that end a problem; 0 awaits every attempt.
        score: accuracy of the votes.
        seconds: mean seconds until the vote was decided, over the same problems.
    """

    agree: int
    score: Score
    seconds: float


def mean_amount(values: Sequence[float]) -> Mean:
    """Return the mean of amounts such as tokens or seconds, with its interval."""
    if not values:
        return Mean(None, 0.0, 0.0, 0)
    return Mean(sum(values) / len(values), *bootstrap_interval(values), len(values))


def judged_attempts(tries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the attempts that were neither cancelled by a consensus nor interrupted."""
    return [one for one in tries if one["ending"] not in CUT_OFF]


def largest_k(run: Run) -> int:
    """Return the largest k for which every problem with a known answer has k attempts to judge.

    If a problem has none, it is the least number above 0 that another has; 0 if there is none.
    """
    counts = [len(judged_attempts(tries)) for one, tries in run if one["truth"] is not None]
    return min((count for count in counts if count), default=0)


def pass_curve(run: Run) -> list[Score]:
    """Return pass@1, pass@2, ... as far as every problem has enough attempts."""
    scores = (pass_score(run, k) for k in range(1, largest_k(run) + 1))
    return [score for score in scores if score is not None]


def majority_curve(run: Run, rule: str = "majority") -> list[Score]:
    """Return the accuracy of a vote of k attempts, for k = 1, 2, ..., as far as `pass_curve`.

    The value of a problem is the share of its sets of k attempts whose vote is right: of all sets,
    or of `MAX_SUBSETS` that are drawn with a fixed seed if there are more.

    Args:
        run: the records.
        rule: a key of `voting.RULES`.
    """
    known = [
        (problem["truth"], [statistics_of(one) for one in judged_attempts(tries)])
        for problem, tries in run
        if problem["truth"] is not None
    ]
    return [
        mean_score(
            f"{rule}@{k}",
            [right_share(tries, truth, k, rule) for truth, tries in known if len(tries) >= k],
        )
        for k in range(1, largest_k(run) + 1)
    ]


def right_share(tries: Sequence[AttemptStatistics], truth: int, k: int, rule: str) -> float:
    """Return the share of the sets of k attempts whose vote by `rule` is `truth`."""
    votes = [vote(chosen, rule).answer == truth for chosen in _subsets(tries, k)]
    return sum(votes) / len(votes)


def _subsets(tries: Sequence[AttemptStatistics], k: int) -> Iterator[Sequence[AttemptStatistics]]:
    if math.comb(len(tries), k) <= MAX_SUBSETS:
        yield from combinations(tries, k)
    else:
        rng = random.Random(k)
        for _ in range(MAX_SUBSETS):
            yield rng.sample(tries, k)


def stop_curve(run: Run, rule: str) -> list[StopPoint]:
    """Return what early stops at 1, 2, ... equal answers would have given, and none at the end.

    Only as many equal answers as there were attempts are considered. Attempts that were cancelled
    have no answer, so a run that was itself stopped early tells nothing about later stops.

    Args:
        run: the records.
        rule: a key of `voting.RULES`.
    """
    known = [(one, tries) for one, tries in run if one["truth"] is not None and tries]
    most = max((len(tries) for _, tries in known), default=0)
    points = []
    for agree in (*range(1, most + 1), 0):
        score = vote_score(known, rule, agree)
        if score is not None:
            times = [
                decision_time([statistics_of(one) for one in tries], rule, agree)[0]
                for _, tries in known
            ]
            points.append(StopPoint(agree, score, sum(times) / len(times)))
    return points


def decision_time(
    statistics: Sequence[AttemptStatistics], rule: str, agree: int
) -> tuple[float, bool]:
    """Return the seconds after which a problem's vote was decided, and whether it was by consensus.

    Args:
        statistics: one entry per attempt.
        rule: a key of `voting.RULES`.
        agree: number of equal answers that end a problem; 0 awaits every attempt.

    Returns:
        The time of the attempt that decided, and True; or the time of the last attempt, and False.
    """
    order = sorted(statistics, key=lambda one: (one.ended, one.index))
    for count in range(1, len(order) + 1):
        outcome = vote(order[:count], rule)
        if outcome.answer is None or not agree:
            continue
        last_agreed = outcome.votes[outcome.answer] >= agree
        if last_agreed or early_stop_reason(outcome, len(order) - count, agree):
            return order[count - 1].ended, True
    return (order[-1].ended if order else 0.0), False
