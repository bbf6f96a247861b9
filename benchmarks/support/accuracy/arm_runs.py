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
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import read_run
from eightfold.solver.problem_set import Problem

Records = list[tuple[dict[str, Any], list[dict[str, Any]]]]
"""The records of problems, each with those of its attempts."""


@dataclass(frozen=True)
class Arm:
    """One way to solve the problems.

    Attributes:
        name: its name in the table.
        tool: the attempts have the tool.
        early_stop: number of equal answers that end a problem; 0 awaits every attempt.
        prompts: file of prompts for this arm alone; None takes that of the run.
    """

    name: str
    tool: bool = True
    early_stop: int = 0
    prompts: Path | None = None


TOOL, NO_TOOL, EARLY_STOP = Arm("tool"), Arm("no tool", tool=False), Arm("early stop", True, 4)


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


def run_arm(
    arm: Arm,
    config: SolverConfig,
    backend: SharedBackend,
    problems: Sequence[Problem],
    folder: Path,
    seconds: float,
) -> ArmResult:
    """Solve problems; attempts that are not done after some seconds are cut off.

    Args:
        arm: the arm.
        config: settings that all arms share; `problems` is the number solved at the same time.
        backend: engine, tokenizer and kernels.
        problems: the problems.
        folder: is made, and receives the records.
        seconds: time for each problem that starts at once.
    """
    began = time.monotonic()
    config = replace(
        config,
        tool=arm.tool,
        early_stop=arm.early_stop,
        prompts=arm.prompts or config.prompts,
        time=seconds,
    )
    run = RunFolder(folder, {"arm": arm.name}, resume=False)
    parts = {"engine": backend.engine, "tokenizer": backend.tokenizer, "pool": backend.pool}
    display = ProgressDisplay(sys.stderr)
    display.note(f"{arm.name}: {len(problems)} problems, at most {seconds:.0f} s")
    try:
        with Solver(config, **parts) as solver:
            display.note(solver.protocol.reason)
            Evaluation(solver, problems, len(problems), run, config.problems).run(display)
    finally:
        run.close()
    return ArmResult(arm, read_run(run.folder), time.monotonic() - began)


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
