"""Two runs of the same problems, compared problem by problem."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..solver_config import SolverError
from .confidence_intervals import bootstrap_interval
from .run_curves import judged_attempts, largest_k, right_share
from .run_reader import statistics_of
from .run_scores import Run

FLIPS = 10_000
"""Number of random assignments in a permutation test."""

Record = tuple[dict[str, Any], list[dict[str, Any]]]
Pair = tuple[Record, Record]


@dataclass(frozen=True)
class PairedScore:
    """A score of two runs over the problems that both have finished.

    Attributes:
        name: what is scored.
        first, second: the means of the runs.
        difference: mean of the second less the first.
        low, high: 95 % bootstrap interval of the difference, over problems.
        p_value: two-sided, see `paired_p_value`.
        count: number of problems.
    """

    name: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    count: int


def paired_p_value(differences: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p-value of paired differences whose signs are random under the null.

    If every difference is -1, 0 or 1, this is McNemar's exact test: Q. McNemar, "Note on the
    sampling error of the difference between correlated proportions or percentages", Psychometrika
    12 (1947), 153-157. Otherwise it is a permutation test of the sum with `FLIPS` random
    assignments of signs: R. A. Fisher, "The Design of Experiments" (1935), section 21.

    Args:
        differences: one value per pair.
        seed: the same seed gives the same value.
    """
    moved = [value for value in differences if value]
    if not moved:
        return 1.0
    if all(abs(value) == 1 for value in moved):
        count = len(moved)
        fewer = min(sum(value > 0 for value in moved), sum(value < 0 for value in moved))
        tail = sum(math.comb(count, i) for i in range(fewer + 1))
        return min(1.0, 2 * tail / 2**count)
    rng = random.Random(seed)
    seen = abs(sum(moved)) - 1e-9
    extreme = sum(
        abs(sum(value if rng.random() < 0.5 else -value for value in moved)) >= seen
        for _ in range(FLIPS)
    )
    return (extreme + 1) / (FLIPS + 1)


def shared_problems(first: Run, second: Run) -> list[Pair]:
    """Return the problems that both runs have finished, in the order of the first.

    Raises:
        SolverError: there is none, or a problem has another text or truth in the other run.
    """
    others = {problem["id"]: (problem, tries) for problem, tries in second}
    pairs = [(record, others[record[0]["id"]]) for record in first if record[0]["id"] in others]
    if not pairs:
        raise SolverError("The runs have no problem in common; compare runs of the same problems.")
    for (one, _), (other, _) in pairs:
        if one["truth"] != other["truth"] or one.get("problem") != other.get("problem"):
            raise SolverError(
                f"Problem {one['id']!r} is not the same in both runs; compare runs of the same "
                "problems."
            )
    return pairs


def paired_scores(pairs: Sequence[Pair]) -> list[PairedScore]:
    """Return the runs' own votes, pass@1 and majority@k, over the problems with a known answer.

    k is the largest number of attempts that both runs have made at every problem. A problem counts
    for a score if both runs have an attempt that can be judged.
    """
    known = [pair for pair in pairs if pair[0][0]["truth"] is not None]
    k = min((largest_k([pair[side] for pair in known]) for side in (0, 1)), default=0)
    found = [_score("as voted", known, lambda one: float(one[0]["answer"] == one[0]["truth"]))]
    judged = [pair for pair in known if all(judged_attempts(tries) for _, tries in pair)]
    found.append(_score("pass@1", judged, lambda one: _voted_share(one, 1)))
    if k > 1:
        enough = [
            pair for pair in judged if all(len(judged_attempts(tries)) >= k for _, tries in pair)
        ]
        found.append(_score(f"majority@{k}", enough, lambda one: _voted_share(one, k)))
    return [score for score in found if score is not None]


def _voted_share(record: Record, k: int) -> float:
    problem, tries = record
    statistics = [statistics_of(one) for one in judged_attempts(tries)]
    return right_share(statistics, problem["truth"], k, "majority")


def _score(
    name: str, pairs: Sequence[Pair], value: Callable[[Record], float]
) -> PairedScore | None:
    if not pairs:
        return None
    first = [value(one) for one, _ in pairs]
    second = [value(other) for _, other in pairs]
    count = len(pairs)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return PairedScore(
        name,
        sum(first) / count,
        sum(second) / count,
        sum(differences) / count,
        *bootstrap_interval(differences),
        paired_p_value(differences),
        count,
    )
