"""Votes over a problem's attempts, by rules that are plain functions, and early stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .attempt_statistics import AttemptStatistics

ENTROPY_FLOOR = 0.1
"""Entropy in nats below which a lower one adds no weight."""

RuleScore = tuple[float, ...]
"""Score of an answer under a rule, computed from its supporters; the larger tuple wins."""


def majority(supporters: Sequence[AttemptStatistics]) -> RuleScore:
    """Count each attempt as 1."""
    return (float(len(supporters)),)


def more_code(supporters: Sequence[AttemptStatistics]) -> RuleScore:
    """Order answers by votes, then by the mean length of the code that their attempts ran.

    Code decides only between equal votes. That helped with a large model and harmed with a small
    one, whose programs are mostly wrong (docs/accuracy.md).
    """
    return (float(len(supporters)), sum(attempt.code for attempt in supporters) / len(supporters))


def fewer_errors(supporters: Sequence[AttemptStatistics]) -> RuleScore:
    """Weigh each attempt by 1 - r/8, from 1 down to 7/8, where r is its errors per call.

    With up to 8 attempts the answer with more votes always wins, and r decides only between equal
    votes: k + 1 votes of the lowest weight, 7/8 (k + 1), exceed k votes of weight 1 if k < 7. On
    real attempts this is no better than a coin (docs/accuracy.md).
    """
    return (sum(1 - attempt.error_rate / 8 for attempt in supporters),)


def entropy(supporters: Sequence[AttemptStatistics]) -> RuleScore:
    """Weigh each attempt by 1/max(H, 0.1), where H is its mean entropy in nats.

    An attempt without a recorded entropy counts as H = 1.
    """
    return (sum(1 / max(_entropy(attempt), ENTROPY_FLOOR) for attempt in supporters),)


def errors_then_entropy(supporters: Sequence[AttemptStatistics]) -> RuleScore:
    """Order answers by votes, then by lower mean errors per call, then by lower mean entropy."""
    count = len(supporters)
    rate = sum(attempt.error_rate for attempt in supporters) / count
    return (float(count), -rate, -sum(map(_entropy, supporters)) / count)


def _entropy(attempt: AttemptStatistics) -> float:
    return 1.0 if attempt.entropy is None else attempt.entropy


Rule = Callable[[Sequence[AttemptStatistics]], RuleScore]
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (majority, more_code, fewer_errors, entropy, errors_then_entropy)
}
DEFAULT_RULE = "majority"
MAX_WEIGHT = dict.fromkeys(RULES, 1.0) | {"entropy": 1 / ENTROPY_FLOOR}
"""The most that one attempt can add to the first part of a rule's score."""


@dataclass(frozen=True)
class VoteOutcome:
    """The result of a vote.

    Attributes:
        answer: the winner, or None if no attempt has an answer.
        votes: number of attempts for each answer, the winner first.
        scores: score of each answer, the winner first.
        rule: name of the rule.
    """

    answer: int | None
    votes: dict[int, int]
    scores: dict[int, RuleScore]
    rule: str


def vote(attempts: Sequence[AttemptStatistics], rule: str | Rule = DEFAULT_RULE) -> VoteOutcome:
    """Apply a rule to the attempts that have an answer.

    Equal scores are decided by more votes, then by the lowest index of a supporter, which is
    arbitrary. The order of `attempts` does not matter.

    Args:
        attempts: the attempts.
        rule: a key of `RULES`, or a function of the same kind.
    """
    score = RULES[rule] if isinstance(rule, str) else rule
    supporters: dict[int, list[AttemptStatistics]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.index):
        if attempt.answer is not None:
            supporters.setdefault(attempt.answer, []).append(attempt)
    scores = {answer: _rounded(score(group)) for answer, group in supporters.items()}

    def rank(answer: int) -> tuple[object, ...]:
        group = supporters[answer]
        return (scores[answer], len(group), -group[0].index)

    order = sorted(supporters, key=rank, reverse=True)
    return VoteOutcome(
        order[0] if order else None,
        {answer: len(supporters[answer]) for answer in order},
        {answer: scores[answer] for answer in order},
        rule if isinstance(rule, str) else rule.__name__,
    )


def _rounded(score: RuleScore) -> RuleScore:
    # Sums of the same weights in another order must be equal.
    return tuple(round(part, 9) for part in score)


def early_stop_reason(outcome: VoteOutcome, running: int, agree: int) -> str | None:
    """Return why the attempts that still run need not be awaited, or None if they must be.

    Args:
        outcome: the vote of the attempts that have ended.
        running: number of attempts that have not ended.
        agree: number of equal answers that end a problem if the rule puts them first; 0 awaits
            every attempt, however large the lead.

    Returns:
        "agreement" if `agree` attempts support the winner, "lead" if the attempts that still run
        cannot overtake it, each at its largest weight.
    """
    if not agree or not running or outcome.answer is None:
        return None
    if outcome.votes[outcome.answer] >= agree:
        return "agreement"
    lead, *others = (score[0] for score in outcome.scores.values())
    if lead > max(others, default=0.0) + running * MAX_WEIGHT[outcome.rule]:
        return "lead"
    return None
