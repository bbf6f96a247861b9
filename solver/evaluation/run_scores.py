"""Scores of a recorded run: accuracies with intervals, and votes replayed by any rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eightfold.common.counted_noun import counted

from ..attempts.attempt import Ending
from ..attempts.attempt_statistics import AttemptStatistics
from ..attempts.voting import early_stop_reason, vote
from .confidence_intervals import bootstrap_interval, pass_at_k, wilson_interval
from .run_folder import statistics_of

Run = Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]
"""The records of problems, each with those of its attempts, as `run_folder.read_run` returns."""

CUT_OFF = (Ending.CONSENSUS, Ending.INTERRUPTED)
"""Endings that do not tell whether the attempt would have been right."""


@dataclass(frozen=True)
class Score:
    """An accuracy over problems with a 95 % interval.

    Attributes:
        name: what is scored.
        value: the accuracy, from 0 to 1.
        low, high: the interval.
        count: number of problems.
    """

    name: str
    value: float
    low: float
    high: float
    count: int


def proportion_score(name: str, hits: int, count: int) -> Score:
    """Return the share of problems that were solved, with Wilson's interval."""
    return Score(name, hits / count if count else 0.0, *wilson_interval(hits, count), count)


def mean_score(name: str, values: Sequence[float]) -> Score:
    """Return a mean over problems, with a bootstrap interval.

    If every value is 0 or 1, the interval is Wilson's: resampling equal values would give an
    interval without width.
    """
    if all(value in (0.0, 1.0) for value in values):
        return proportion_score(name, round(sum(values)), len(values))
    value = sum(values) / len(values) if values else 0.0
    return Score(name, value, *bootstrap_interval(values), len(values))


def replay_vote(
    statistics: Sequence[AttemptStatistics],
    rule: str,
    early_stop: int = 0,
    attempts: int | None = None,
) -> int | None:
    """Return the answer that a rule would have given to a problem.

    Args:
        statistics: one entry per attempt.
        rule: a key of `voting.RULES`.
        early_stop: with K > 0, take the attempts in the order they ended, until K agree or the
            lead cannot be caught. Later attempts are ignored, as if cancelled.
        attempts: take only the first so many; None takes all.
    """
    chosen = [one for one in statistics if attempts is None or one.index < attempts]
    if early_stop:
        order = sorted(chosen, key=lambda one: (one.ended, one.index))
        for count in range(1, len(order) + 1):
            outcome = vote(order[:count], rule)
            if early_stop_reason(outcome, len(order) - count, early_stop):
                return outcome.answer
    return vote(chosen, rule).answer


def vote_score(
    run: Run, rule: str, early_stop: int = 0, attempts: int | None = None
) -> Score | None:
    """Return the accuracy of a rule's vote over the problems whose answer is known.

    See `replay_vote` for the arguments.

    Returns:
        The score, or None if no answer is known.
    """
    known = [(problem, tries) for problem, tries in run if problem["truth"] is not None]
    hits = sum(
        replay_vote([statistics_of(one) for one in tries], rule, early_stop, attempts)
        == problem["truth"]
        for problem, tries in known
    )
    return proportion_score(rule, hits, len(known)) if known else None


def pass_score(run: Run, k: int, attempts: int | None = None) -> Score | None:
    """Return the mean over problems of the unbiased estimate of pass@k.

    Attempts that were cancelled by a consensus are left out, because they were not wrong. They
    also tend to be the slow ones, which are wrong more often: only a run without early stop gives
    an unbiased figure.

    Args:
        run: the records.
        k: attempts at a problem, of which one must be right.
        attempts: take only the first so many; None takes all.

    Returns:
        The score, or None if no problem has a known answer and k attempts to judge.
    """
    values = []
    for problem, tries in run:
        judged = [
            one
            for one in tries
            if one["ending"] not in CUT_OFF and (attempts is None or one["attempt"] < attempts)
        ]
        if problem["truth"] is not None and len(judged) >= k:
            right = sum(one["answer"] == problem["truth"] for one in judged)
            values.append(pass_at_k(len(judged), right, k))
    return mean_score(f"pass@{k}", values) if values else None


def pass_caveat(cancelled: int) -> str:
    """Return the sentence to print beside a pass@k of a run with cancelled attempts."""
    return (
        f"pass@k leaves out {counted(cancelled, 'attempt')} that a consensus cancelled. Those tend "
        "to be wrong more often, so the figure is rather too high; a run with --early-stop 0 gives "
        "an unbiased one."
    )


def summarize(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON.

    Args:
        run: the records.
        settings: the settings of the run, as in its run.json.
    """
    tries = [one for _, attempts in run for one in attempts]
    known = [problem for problem, _ in run if problem["truth"] is not None]
    most = int(settings.get("attempts", 1))
    right = sum(problem["answer"] == problem["truth"] for problem in known)
    scores = [proportion_score("accuracy", right, len(known))] if known else []
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
        "lost": sum(problem.get("lost", 0) for problem, _ in run),
    }
