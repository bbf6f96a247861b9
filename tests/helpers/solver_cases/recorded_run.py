"""A run that is recorded without a model: a stand-in for the solver, problems and answers."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from eightfold.solver import SolverConfig
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.problem_set import Problem
from eightfold.solver.solver import Result

PROBLEMS = [Problem(f"p{i}", f"text {i}", i, "even" if i % 2 == 0 else "odd") for i in range(6)]
ANSWERS: dict[str, list[int | None]] = {
    f"text {i}": [i, i + 1, i if i < 4 else None] for i in range(6)
}
"""The answers of the attempts at each problem."""

SETTINGS = {"attempts": 3, "seed": 0}


def attempt_record(index: int, answer: int | None, ended: float) -> dict[str, Any]:
    """Return the record of an attempt, without the keys that a run folder adds."""
    return {
        "attempt": index,
        "seed": index,
        "ending": "answered" if answer is not None else "cancelled by consensus",
        "detail": "",
        "answer": answer,
        "tokens": 10,
        "calls": 2,
        "errors": 0,
        "error_kinds": [],
        "entropy": 1.0,
        "ended": ended,
        "turns": [{"entropies": [0.2, 0.4]}],
    }


class ScriptedSolver:
    """Gives each problem the answers of a table.

    Args:
        answers: the answers of the attempts, by the problem's text.
        before: called with each problem's text before it is solved; may raise.
    """

    def __init__(
        self, answers: dict[str, list[int | None]], before: Callable[[str], object]
    ) -> None:
        self.answers = answers
        self.before = before
        self.config = SolverConfig(time=100)
        self.alive = True
        self.solved: list[str] = []
        self.granted: list[float] = []

    def solve_or_nothing(self, text: str, **options: Any) -> Result:
        """Report the attempts at a problem and return their vote."""
        self.before(text)
        self.solved.append(text)
        self.granted.append(options["seconds"])
        records = [attempt_record(i, a, float(i)) for i, a in enumerate(self.answers[text])]
        for record in records:
            options["on_attempt"](record)
        counts: dict[int, int] = {}
        for value in self.answers[text]:
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        best = max(counts, key=lambda value: counts[value], default=None)
        return Result(best, counts, tuple(records), 1.0, 10, 2, 0, "all ended")


def silent_display() -> ProgressDisplay:
    """Return a display that shows nothing."""
    return ProgressDisplay(StringIO(), enabled=False)


def record_run(
    folder: Path, before: Callable[[str], object] = lambda text: None, **options: Any
) -> tuple[ScriptedSolver, Evaluation]:
    """Run or resume an evaluation of `PROBLEMS` in a folder.

    Args:
        folder: the folder of the run.
        before: see `ScriptedSolver`.
        options: options of `Evaluation`.
    """
    run = RunFolder(folder, SETTINGS, resume=True)
    solver = ScriptedSolver(ANSWERS, before)
    evaluation = Evaluation(solver, PROBLEMS, len(PROBLEMS), run, **options)
    try:
        evaluation.run(silent_display())
    finally:
        run.close()
    return solver, evaluation
