"""Two runs side by side: their scores, and what changed in each problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.paired_runs import PairedScore, paired_scores, shared_problems
from ..evaluation.run_scores import Run
from .run_figures import verdict

CHANGES = {
    ("right", "right"): "both right",
    ("wrong", "right"): "gained",
    ("right", "wrong"): "lost",
    ("wrong", "wrong"): "both wrong",
    ("unknown", "unknown"): "unknown",
}


@dataclass(frozen=True)
class ComparedProblem:
    """A problem in both runs.

    Attributes:
        record, tries: the records of the second run.
        change: one of `CHANGES`, seen from the first run.
    """

    record: dict[str, Any]
    tries: list[dict[str, Any]]
    change: str

    @property
    def tokens(self) -> int:
        """Tokens of all attempts of the second run."""
        return sum(one["tokens"] for one in self.tries)


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        names: names of the runs.
        scores: their scores over the problems that both have finished.
        problems: these problems, by id.
        counts: number of problems for each change, in the order of `CHANGES`.
        unshared: numbers of problems that only the first and only the second run has finished.
    """

    names: tuple[str, str]
    scores: Sequence[PairedScore]
    problems: dict[str, ComparedProblem]
    counts: dict[str, int]
    unshared: tuple[int, int]


def compare_runs(first: Run, second: Run, names: tuple[str, str]) -> Comparison:
    """Compare two runs of the same problems.

    Raises:
        SolverError: they have no problem in common, or one that is not the same in both.
    """
    pairs = shared_problems(first, second)
    problems = {
        one["id"]: ComparedProblem(other, tries, CHANGES[verdict(one), verdict(other)])
        for (one, _), (other, tries) in pairs
    }
    counts = Counter(problem.change for problem in problems.values())
    return Comparison(
        names,
        paired_scores(pairs),
        problems,
        {change: counts[change] for change in CHANGES.values() if counts[change]},
        (len(first) - len(pairs), len(second) - len(pairs)),
    )
