"""`eightfold evaluate`: solve a file of problems, record every attempt, and report accuracy."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted
from eightfold.common.terminal_table import Column, format_table
from eightfold.sandbox.platform_support import check_platform

from ...attempts.attempt import Ending
from ...display.progress_display import ProgressDisplay
from ...evaluation.evaluation_run import Evaluation
from ...evaluation.problem_record import SET_ASIDE, is_unfamiliar
from ...evaluation.run_folder import RunFolder, write_json
from ...evaluation.run_reader import RunRecord, iterate_run
from ...evaluation.run_scores import pass_caveat, summarize
from ...evaluation.run_settings import run_settings
from ...model_defaults import ModelInputs, read_model_inputs
from ...problem_set import ProblemSet, Survey
from ...scale.cluster_run import ClusterRun
from ...scale.crew_messages import CrewPlan
from ...scale.crew_process import CrewProcess
from ...scale.worker_options import add_worker_options, crew_plan
from ...solver_config import SolverConfig, SolverError
from ...time_budget import Budget, BudgetConfig
from ..exit_codes import ExitCode
from ..solver_options import (
    add_devices_option,
    add_problem_options,
    add_solver_options,
    chosen_problems,
    named,
    solver_config,
    warn_of_truths,
)

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

SCORE_COLUMNS = (Column("score"), Column("value", right=True), Column("95 % interval"), Column(""))
FAMILY_COLUMNS = (Column("family"), Column("right", right=True), Column(""))

ENGINE_LOSSES = (Ending.ENGINE, Ending.MEMORY)
"""Endings for which the engine, not the sandbox, lost an attempt."""

logger = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="solve a file of problems and score the answers",
        description="Solve the problems of a file or a data set with the columns id, problem and "
        "answer. Each problem and each attempt is recorded in the folder --out as it ends; if the "
        "folder holds a run with the same settings, that is continued.",
    )
    parser.add_argument(
        "problems",
        metavar="FILE",
        help=".csv, .jsonl or .parquet file, folder of a data set, or id of one on Hugging Face",
    )
    add_problem_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out; this is done anyway if its settings are the same",
    )
    parser.add_argument(
        "--limit-time",
        type=float,
        metavar="S",
        help="seconds the whole run may take, from the start of the process; each problem then "
        "gets what the time budget grants, but at most --time",
    )
    parser.add_argument("--first", type=int, metavar="N", help="take only the first N problems")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="K",
        help="problems solved at the same time (%(default)s)",
    )
    add_worker_options(parser)
    add_solver_options(parser)
    add_devices_option(parser, default=None)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the evaluation and print its summary.

    Wrong answers do not change the exit code; attempts that the machine failed do.
    """
    if options.parallel < 1:
        raise SolverError(f"--parallel must be at least 1, not {options.parallel}.")
    if options.first is not None and options.first < 1:
        raise SolverError(f"--first must be at least 1, not {options.first}.")
    kernels = options.kernels_per_worker or options.kernels
    config = solver_config(options, kernels=kernels, problems=options.parallel)
    config = config.for_problems(options.parallel)
    plan = crew_plan(options, config)
    budget = run_budget(options.limit_time, config)
    problems = chosen_problems(options)
    survey = problems.survey(config.low, config.high)
    warn_of_truths(survey.outside, config)
    check_platform()
    inputs = read_model_inputs(config, progress=not options.quiet)
    logger.info("model: %s", inputs.folder)
    settings = run_settings(config, survey.digest, inputs, options.limit_time)
    display = ProgressDisplay(sys.stderr, enabled=not options.quiet)
    folder = RunFolder(Path(options.out), settings, resume=True)
    try:
        if len(folder.finished) < survey.count:
            evaluation: Evaluation | ClusterRun
            if plan is None:
                evaluation = _solve_here(config, inputs, problems, survey, folder, budget, display)
            else:
                evaluation = _solve_on_workers(plan, problems, survey, folder, budget, display)
            if evaluation.out_of_time:
                said = f"Time is up: {evaluation.status()}; the same command goes on."
                print(said, file=sys.stderr)
        return _report(folder.folder, settings, options.json)
    except KeyboardInterrupt:
        display.clear()
        done = f"{folder.count} of {counted(survey.count, 'problem')} done"
        raise KeyboardInterrupt(f"Interrupted; {done}; --resume goes on.") from None
    finally:
        folder.close()


def _solve_here(
    config: SolverConfig,
    inputs: ModelInputs,
    problems: ProblemSet,
    survey: Survey,
    folder: RunFolder,
    budget: Budget | None,
    display: ProgressDisplay,
) -> Evaluation:
    """Solve the problems in this process."""
    display.note("loading the model and starting the Python kernels")
    from ...solver import Solver

    with Solver(config, inputs=inputs) as solver:
        if solver.on_gpu:
            display.line(solver.table())
        if config.model is not None:
            display.note(solver.protocol.reason)
        evaluation = Evaluation(solver, problems, survey.count, folder, config.problems, budget)
        evaluation.run(display)
    return evaluation


def _solve_on_workers(
    plan: CrewPlan,
    problems: ProblemSet,
    survey: Survey,
    folder: RunFolder,
    budget: Budget | None,
    display: ProgressDisplay,
) -> ClusterRun:
    """Solve the problems on the workers of a Ray cluster."""
    display.note("joining the Ray cluster")
    run = ClusterRun(problems, survey.count, folder, plan.config, lambda: CrewProcess(plan), budget)
    run.run(display)
    return run


def _report(folder: Path, settings: dict[str, Any], as_json: bool) -> int:
    """Write the summary of a run, print it, and return the exit code."""
    faults: dict[str, dict[str, None]] = {}
    aside: list[str] = []
    unfamiliar: list[str] = []
    summary = {
        "settings": settings,
        **summarize(_noted(iterate_run(folder), faults, aside, unfamiliar), settings),
    }
    write_json(folder / "summary.json", summary)
    for fault, ids in faults.items():
        print(f"fault in {named(list(ids))}: {fault}", file=sys.stderr)
    print_summary(summary)
    if unfamiliar:
        problems = counted(len(unfamiliar), "problem")
        print(f"unlike the model's training: {problems}, not to be trusted: {named(unfamiliar)}")
    print(f"each problem: {folder / 'problems.jsonl'}; attempts.jsonl holds the attempts")
    if as_json:
        print(json.dumps(summary), flush=True)
    if aside:
        said = f"Set aside, because the machine failed each time: {named(aside)}."
        print(said, file=sys.stderr)
    if not summary["lost"]:
        return ExitCode.OK
    lost = counted(summary["lost"], "attempt")
    endings = summary["endings"]
    what = "machine" if aside or any(one in endings for one in ENGINE_LOSSES) else "sandbox"
    said = f"The {what} failed in {lost}, whenever they were made; --resume makes them again."
    print(said, file=sys.stderr)
    return ExitCode.FAILED


def _noted(
    run: Iterable[RunRecord],
    faults: dict[str, dict[str, None]],
    aside: list[str],
    unfamiliar: list[str],
) -> Iterator[RunRecord]:
    """Pass records on; note faults with the problems' ids, what was set aside or is unfamiliar."""
    for problem, tries in run:
        for fault in problem["faults"]:
            faults.setdefault(fault, {})[problem["id"]] = None
        if problem.get("stopped") == SET_ASIDE:
            aside.append(problem["id"])
        if is_unfamiliar(problem):
            unfamiliar.append(problem["id"])
        yield problem, tries


def run_budget(limit: float | None, config: SolverConfig) -> Budget | None:
    """Return the time budget for a run of at most `limit` seconds, or None without a limit.

    Raises:
        SolverError: the limit is not a positive number of seconds.
    """
    if limit is None:
        return None
    if not 0 < limit < math.inf:
        raise SolverError(f"--limit-time must be a positive number of seconds, not {limit:g}.")
    return Budget(BudgetConfig(limit=limit, cap=max(config.time, BudgetConfig.floor)))


def print_summary(summary: dict[str, Any]) -> None:
    """Print the scores, the families and the totals of `run_scores.summarize`."""
    if "accuracy" not in summary["scores"]:
        print("no problem with a known answer is done")
    if summary["scores"]:
        scores = [
            (
                name,
                f"{score['value']:.1%}",
                f"[{score['low']:.1%}, {score['high']:.1%}]",
                f"of {counted(score['problems'], 'problem')}",
            )
            for name, score in summary["scores"].items()
        ]
        print(format_table(SCORE_COLUMNS, scores, plain_titles=False))
    cancelled = summary["endings"].get(Ending.CONSENSUS, 0)
    if cancelled and any(name.startswith("pass@") for name in summary["scores"]):
        print(pass_caveat(cancelled))
    if summary["families"]:
        families = [
            (name, str(family["right"]), f"of {family['problems']}")
            for name, family in summary["families"].items()
        ]
        print(format_table(FAMILY_COLUMNS, families, plain_titles=False, indent=2))
    totals = ("problem", "attempt", "token", "call", "error")
    print(
        ", ".join(counted(summary[f"{name}s"], name) for name in totals)
        + f", {summary['seconds']:.0f} s in problems, {counted(summary['faults'], 'fault')}"
    )
    for title, key in (("errors", "errors_by_kind"), ("attempts", "endings")):
        counts = ", ".join(f"{name} {count}" for name, count in summary[key].items())
        print(f"{title}: {counts or 'none'}")
