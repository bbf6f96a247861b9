"""Scores of a recorded run: accuracies with intervals, and votes replayed by any rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eightfold.common.counted_noun import counted

from ..attempts.attempt import Ending
from ..attempts.attempt_statistics import AttemptStatistics
from ..attempts.voting import early_stop_reason, vote
from .confidence_intervals import (
    bootstrap_interval,
    normal_interval,
    pass_at_k,
    wilson_interval,
)
from .run_reader import RunRecord, statistics_of

Run = Sequence[RunRecord]
"""The records of problems, each with those of its attempts, as `run_reader.read_run` returns."""

CUT_OFF = (Ending.CONSENSUS, Ending.INTERRUPTED)
"""Endings that do not tell whether the attempt would have been right."""


MANY_VALUES = 5000
"""Values above which resampling them 2,000 times takes seconds and changes no digit shown."""


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
    """Return a mean over problems, with a bootstrap interval, or for many problems a normal one.

    If every value is 0 or 1, the interval is Wilson's: resampling equal values would give an
    interval without width.
    """
    if all(value in (0.0, 1.0) for value in values):
        return proportion_score(name, round(sum(values)), len(values))
    value = sum(values) / len(values) if values else 0.0
    many = len(values) > MANY_VALUES
    interval = normal_interval(values) if many else bootstrap_interval(values)
    return Score(name, value, *interval, len(values))


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
    values: list[float] = []
    for problem, tries in run:
        chosen = [one for one in tries if attempts is None or one["attempt"] < attempts]
        values += _pass_values(problem, chosen, k)
    return mean_score(f"pass@{k}", values) if values else None


def pass_caveat(cancelled: int) -> str:
    """Return the sentence to print beside a pass@k of a run with cancelled attempts."""
    return (
        f"pass@k leaves out {counted(cancelled, 'attempt')} that a consensus cancelled. Those tend "
        "to be wrong more often, so the figure is rather too high; a run with --early-stop 0 gives "
        "an unbiased one."
    )


def summarize(run: Iterable[RunRecord], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON; the records are read once, one by one.

    Args:
        run: the records.
        settings: the settings of the run, as in its run.json.
    """
    counts = sorted({1, int(settings.get("attempts", 1))})
    passes: dict[int, list[float]] = {k: [] for k in counts}
    known: list[bool] = []
    families: dict[str, list[bool]] = {}
    sums: Counter[str] = Counter()
    kinds, endings = Counter[str](), Counter[str]()
    seconds = 0.0
    for problem, tries in run:
        seconds += problem["seconds"]
        faults, lost = len(problem["faults"]), problem.get("lost", 0)
        sums.update(problems=1, attempts=len(tries), faults=faults, lost=lost)
        for one in tries:
            sums.update({name: one[name] for name in ("tokens", "calls", "errors")})
            kinds.update(one["error_kinds"])
            endings[one["ending"]] += 1
        if problem["truth"] is not None:
            known.append(problem["answer"] == problem["truth"])
            if problem["family"]:
                families.setdefault(problem["family"], []).append(known[-1])
            for k in counts:
                passes[k] += _pass_values(problem, tries, k)
    scores = [proportion_score("accuracy", sum(known), len(known))] if known else []
    scores += [mean_score(f"pass@{k}", values) for k, values in passes.items() if values]
    return {
        "problems": sums["problems"],
        "scores": {
            one.name: {"value": one.value, "low": one.low, "high": one.high, "problems": one.count}
            for one in scores
        },
        "families": {
            name: {"right": sum(hits), "problems": len(hits)}
            for name, hits in sorted(families.items())
        },
        "seconds": round(seconds, 1),
        "tokens": sums["tokens"],
        "attempts": sums["attempts"],
        "calls": sums["calls"],
        "errors": sums["errors"],
        "errors_by_kind": dict(kinds.most_common()),
        "endings": dict(endings.most_common()),
        "faults": sums["faults"],
        "lost": sums["lost"],
    }


def _pass_values(problem: dict[str, Any], tries: Sequence[dict[str, Any]], k: int) -> list[float]:
    """Return the estimate of pass@k for a problem, or nothing if too few attempts can be judged."""
    judged = [one for one in tries if one["ending"] not in CUT_OFF]
    if problem["truth"] is None or len(judged) < k:
        return []
    right = sum(one["answer"] == problem["truth"] for one in judged)
    return [pass_at_k(len(judged), right, k)]
