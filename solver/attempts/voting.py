"""Chooses a problem's answer from its attempts' statistics by rules that are plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .attempt_statistics import AttemptStatistics

ENTROPY_FLOOR = 0.1
"""Nats below which a lower entropy says nothing more."""

Score = tuple[float, ...]
"""What one answer's supporters amount to; the larger tuple wins."""


def majority(supporters: Sequence[AttemptStatistics]) -> Score:
    """Each attempt counts 1."""
    return (float(len(supporters)),)


def fewer_errors(supporters: Sequence[AttemptStatistics]) -> Score:
    """Each attempt counts 1 - r/8, where r is its errors per call: monotone in r, from 1 to 7/8.

    With up to 8 attempts more votes always win, so r only decides between equals: k + 1 votes of
    the worst kind, 7/8 (k + 1), exceed k of the best wherever k < 7. On published logs of
    competition runs a stronger weight changed no score (docs/solver.md).
    """
    return (sum(1 - statistics.error_rate / 8 for statistics in supporters),)


def entropy(supporters: Sequence[AttemptStatistics]) -> Score:
    """Each attempt counts 1/max(H, 0.1), H the mean entropy of its last tokens in nats.

    An attempt without a recorded entropy counts as H = 1.
    """
    return (sum(1 / max(_entropy(statistics), ENTROPY_FLOOR) for statistics in supporters),)


def errors_then_entropy(supporters: Sequence[AttemptStatistics]) -> Score:
    """Votes; where they are equal the lower mean errors per call; then the lower mean entropy."""
    count = len(supporters)
    rate = sum(statistics.error_rate for statistics in supporters) / count
    return (float(count), -rate, -sum(map(_entropy, supporters)) / count)


def _entropy(statistics: AttemptStatistics) -> float:
    return 1.0 if statistics.entropy is None else statistics.entropy


RULES: dict[str, Callable[[Sequence[AttemptStatistics]], Score]] = {
    rule.__name__: rule for rule in (majority, fewer_errors, entropy, errors_then_entropy)
}
DEFAULT_RULE = "fewer_errors"
CEILING = {"majority": 1.0, "fewer_errors": 1.0, "errors_then_entropy": 1.0} | {
    "entropy": 1 / ENTROPY_FLOOR
}
"""The most that one attempt can add to the first part of a rule's score."""


@dataclass(frozen=True)
class Outcome:
    """The winner and the table behind it: votes and score of each answer, the winner first."""

    answer: int | None
    votes: dict[int, int]
    scores: dict[int, Score]


def vote(statistics: Sequence[AttemptStatistics], rule: str = DEFAULT_RULE) -> Outcome:
    """Applies a rule to the attempts that have an answer.

    Ties go to the answer with more votes, then to the one whose supporters made fewer errors in
    all, then to the one whose first supporter has the lowest index: the same statistics give the same
    winner in whatever order they come.
    """
    groups: dict[int, list[AttemptStatistics]] = {}
    for one in sorted(statistics, key=lambda one: one.index):
        if one.answer is not None:
            groups.setdefault(one.answer, []).append(one)
    scores = {answer: _rounded(RULES[rule](group)) for answer, group in groups.items()}

    def rank(answer: int) -> tuple[object, ...]:
        group = groups[answer]
        return (scores[answer], len(group), -sum(one.errors for one in group), -group[0].index)

    order = sorted(groups, key=rank, reverse=True)
    return Outcome(
        order[0] if order else None,
        {answer: len(groups[answer]) for answer in order},
        {answer: scores[answer] for answer in order},
    )


def _rounded(score: Score) -> Score:
    # Sums of the same weights in another order must tie.
    return tuple(round(part, 9) for part in score)


def decided(
    statistics: Sequence[AttemptStatistics], running: int, agree: int, rule: str = DEFAULT_RULE
) -> str | None:
    """Why no further attempt is awaited: "agreement", "lead", or None where it is still open.

    Args:
        statistics: attempts that have ended.
        running: attempts that have not.
        agree: equal answers that settle the vote where the rule puts them first; 0 asks for every
            attempt, whatever the lead.
        rule: its score decides whether the attempts still running could overtake the leader.
    """
    if not agree or not running:
        return None
    outcome = vote(statistics, rule)
    if outcome.answer is None:
        return None
    if outcome.votes[outcome.answer] >= agree:
        return "agreement"
    lead, *others = (score[0] for score in outcome.scores.values())
    if lead > max(others, default=0.0) + running * CEILING[rule]:
        return "lead"
    return None
