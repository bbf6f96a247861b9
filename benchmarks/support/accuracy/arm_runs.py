"""The arms of `accuracy.py`: the same problems with and without the tool, and stopped early."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from eightfold.engine import Engine
from eightfold.sandbox import KernelPool
from eightfold.solver import Solver, SolverConfig
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.run_folder import RunFolder, read_run
from eightfold.solver.problem_set import Problem
from eightfold.solver.progress_display import ProgressDisplay
from eightfold.solver.time_budget import Budget, BudgetConfig

Records = list[tuple[dict[str, Any], list[dict[str, Any]]]]
"""The records of problems, each with those of its attempts."""


@dataclass(frozen=True)
class Arm:
    """One way to solve the problems.

    Attributes:
        name: its name in the table.
        tool: the attempts have the tool.
        early_stop: number of equal answers that end a problem; 0 awaits every attempt.
        share: its share of the time, relative to those of the other arms.
    """

    name: str
    tool: bool
    early_stop: int
    share: float


ARMS = (Arm("tool", True, 0, 4), Arm("no tool", False, 0, 3), Arm("early stop", True, 4, 3))
"""The arms in the order in which they run. The first one decides how many problems fit."""


@dataclass(frozen=True)
class SharedBackend:
    """Parts that all arms share, so that the model is loaded once."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    pool: KernelPool


@dataclass(frozen=True)
class ArmResult:
    """The results of an arm.

    Attributes:
        arm: the arm.
        records: problems that it finished, with their attempts.
        seconds: its time.
    """

    arm: Arm
    records: Records
    seconds: float


class ArmClock(Budget):
    """Starts no problem that would probably end after the arm's time.

    Args:
        end: when the arm must end, of `time.monotonic()`.

    Attributes:
        longest: the longest time, so far, that a problem took.
    """

    def __init__(self, end: float) -> None:
        super().__init__(BudgetConfig())
        self.end = end
        self.longest = 0.0

    def grant(self, after: int) -> float:
        """Return the seconds until the arm's end, or 0 if a problem may need more."""
        left = self.end - time.monotonic()
        return left if left > self.longest else 0.0

    def record(self, granted: float, taken: float) -> None:
        self.longest = max(self.longest, taken)


def run_arm(
    arm: Arm,
    config: SolverConfig,
    backend: SharedBackend,
    problems: Sequence[Problem],
    folder: Path,
    seconds: float,
) -> ArmResult:
    """Solve as many of the problems as fit into some seconds.

    Args:
        arm: the arm.
        config: settings that all arms share; `problems` is the number solved at the same time.
        backend: engine, tokenizer and kernels.
        problems: the problems.
        folder: receives the records, in a folder of the arm's name.
        seconds: time for the arm.
    """
    began = time.monotonic()
    config = replace(config, tool=arm.tool, early_stop=arm.early_stop, time=seconds)
    run = RunFolder(folder / arm.name.replace(" ", "_"), {"arm": arm.name}, resume=False)
    parts = {"engine": backend.engine, "tokenizer": backend.tokenizer, "pool": backend.pool}
    display = ProgressDisplay(sys.stderr)
    display.note(f"{arm.name}: {len(problems)} problems, at most {seconds:.0f} s")
    try:
        with Solver(config, **parts) as solver:
            clock = ArmClock(began + seconds)
            Evaluation(solver, problems, run, config.problems, clock).run(display)
    finally:
        run.close()
    return ArmResult(arm, read_run(run.folder), time.monotonic() - began)


def arm_seconds(arms: Sequence[Arm], index: int, left: float) -> float:
    """Return the time of the arm at `index`: its share of what is left for it and those behind."""
    return left * arms[index].share / sum(arm.share for arm in arms[index:])


def common_records(results: Sequence[ArmResult]) -> list[ArmResult]:
    """Return the results with only those problems that every arm finished, in the same order."""
    done = [{problem["id"] for problem, _ in result.records} for result in results]
    common = set.intersection(*done)
    return [
        replace(
            result,
            records=sorted(
                (one for one in result.records if one[0]["id"] in common),
                key=lambda one: str(one[0]["id"]),
            ),
        )
        for result in results
    ]
