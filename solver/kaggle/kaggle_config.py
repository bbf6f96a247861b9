"""Settings of a submission, checked when they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from eightfold.common.error_text import one_line

from ..answers.boxed_answer import MAX_ANSWER, MIN_ANSWER
from ..solver_config import SolverConfig, SolverError
from ..time_budget import BudgetConfig

PROBLEMS = 50
"""Problems of a scored run."""

RUN_SECONDS = 17_700.0
"""Seconds a run may take from the start of its process: the competition's limit of 5 hours, less
300 s for what the notebook does before this process starts and after the last answer."""


@dataclass(frozen=True)
class KaggleConfig:
    """Settings of a submission.

    Attributes:
        solver: settings of the solver.
        problems: number of problems in the run. Problems after that many share the time that is
            left.
        budget: the time budget, in seconds from the start of the process.
        fallback: the answer to a problem if no attempt produced one.
        log: JSON Lines file with a line per problem; None writes none.
        traces: JSON Lines file with a line per attempt; None writes none.

    Raises:
        SolverError: `problems` is not a positive integer, or `fallback` is not a valid answer.
    """

    solver: SolverConfig = field(default_factory=SolverConfig)
    problems: int = PROBLEMS
    budget: BudgetConfig = field(default_factory=lambda: BudgetConfig(limit=RUN_SECONDS))
    fallback: int = 0
    log: Path | None = None
    traces: Path | None = None

    def __post_init__(self) -> None:
        if type(self.problems) is not int or self.problems < 1:
            given = one_line(repr(self.problems))
            raise SolverError(f"problems must be an integer of at least 1, not {given}.")
        # The fallback is returned if everything else has failed, so nothing checks it later.
        if not is_valid_answer(self.fallback):
            given = one_line(repr(self.fallback))
            raise SolverError(
                f"fallback must be an integer from {MIN_ANSWER} to {MAX_ANSWER}, not {given}."
            )


def is_valid_answer(answer: object) -> bool:
    """Return True if `answer` is an int that the competition accepts."""
    is_int = isinstance(answer, int) and not isinstance(answer, bool)
    return is_int and MIN_ANSWER <= answer <= MAX_ANSWER  # type: ignore[operator]


def is_scored_run() -> bool:
    """Return True if this is the run that the competition scores, not a run of our own."""
    return "KAGGLE_IS_COMPETITION_RERUN" in os.environ
