"""Scores of a run from its traces: accuracies with intervals, votes replayed by any rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..attempts.attempt_statistics import AttemptStatistics
from ..attempts.voting import decided, vote
from .confidence_intervals import bootstrap, pass_at_k, wilson
from .run_folder import statistics_of

Run = Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]
"""Problems with their attempts, as `trace.read_run` gives them."""

CUT = ("cancelled by consensus", "interrupted")
"""Endings of attempts that say nothing about whether they would have been right."""


@dataclass(frozen=True)
class Score:
    """An accuracy over problems with a 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:6.1%}  [{self.low:.1%}, {self.high:.1%}]  n={self.count}"


def proportion(name: str, hits: int, count: int) -> Score:
    """A share of problems, with Wilson's interval."""
    return Score(name, hits / count if count else 0.0, *wilson(hits, count), count)


def mean(name: str, values: Sequence[float]) -> Score:
    """A mean over problems, with a bootstrap interval; Wilson's where every value is 0 or 1.

    Resampling equal values would give an interval of no width.
    """
    if all(value in (0.0, 1.0) for value in values):
        return proportion(name, round(sum(values)), len(values))
    value = sum(values) / len(values) if values else 0.0
    return Score(name, value, *bootstrap(values), len(values))


def replay_vote(
    statistics: Sequence[AttemptStatistics],
    rule: str,
    early_stop: int = 0,
    attempts: int | None = None,
) -> int | None:
    """The answer that a rule would have given to a problem.

    Args:
        early_stop: with K > 0 the attempts are taken in the order they ended, until K agree or the
            lead cannot be caught; those after are ignored, as if cancelled.
        attempts: take only the first so many.
    """
    chosen = [one for one in statistics if attempts is None or one.index < attempts]
    if early_stop:
        order = sorted(chosen, key=lambda one: (one.ended, one.index))
        for count in range(1, len(order) + 1):
            if decided(order[:count], len(order) - count, early_stop, rule):
                return vote(order[:count], rule).answer
    return vote(chosen, rule).answer


def vote_score(
    run: Run, rule: str, early_stop: int = 0, attempts: int | None = None
) -> Score | None:
    """Accuracy of a rule's vote over the problems whose answer is known; None where none is."""
    known = [(problem, tries) for problem, tries in run if problem["truth"] is not None]
    hits = sum(
        replay_vote([statistics_of(one) for one in tries], rule, early_stop, attempts)
        == problem["truth"]
        for problem, tries in known
    )
    return proportion(rule, hits, len(known)) if known else None


def pass_score(run: Run, k: int, attempts: int | None = None) -> Score | None:
    """Mean over problems of the unbiased pass@k; None where no problem has k attempts to judge.

    Attempts cancelled by a consensus are left out: they were not wrong. They are also the slow
    ones, which tend to be wrong: only a run without early stop gives an unbiased figure.
    """
    values = []
    for problem, tries in run:
        judged = [
            one
            for one in tries
            if one["ending"] not in CUT and (attempts is None or one["attempt"] < attempts)
        ]
        if problem["truth"] is not None and len(judged) >= k:
            right = sum(one["answer"] == problem["truth"] for one in judged)
            values.append(pass_at_k(len(judged), right, k))
    return mean(f"pass@{k}", values) if values else None


def summarise(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run, JSON-ready."""
    tries = [one for _, attempts in run for one in attempts]
    known = [problem for problem, _ in run if problem["truth"] is not None]
    most = int(settings.get("attempts", 1))
    right = sum(problem["answer"] == problem["truth"] for problem in known)
    scores = [proportion("accuracy", right, len(known))] if known else []
    scores += [score for k in sorted({1, most}) if (score := pass_score(run, k)) is not None]
    families: dict[str, list[bool]] = {}
    for problem in known:
        if problem["family"]:
            families.setdefault(problem["family"], []).append(problem["answer"] == problem["truth"])
    return {
        "problems": len(run),
        "scores": {
            one.name: {"value": one.value, "low": one.low, "high": one.high, "problems": one.count}
            for one in scores
        },
        "families": {
            name: {"right": sum(hits), "problems": len(hits)}
            for name, hits in sorted(families.items())
        },
        "seconds": round(sum(problem["seconds"] for problem, _ in run), 1),
        "tokens": sum(one["tokens"] for one in tries),
        "attempts": len(tries),
        "calls": sum(one["calls"] for one in tries),
        "errors": sum(one["errors"] for one in tries),
        "errors_by_kind": dict(
            Counter(k for one in tries for k in one["error_kinds"]).most_common()
        ),
        "endings": dict(Counter(one["ending"] for one in tries).most_common()),
        "faults": sum(len(problem["faults"]) for problem, _ in run),
    }
