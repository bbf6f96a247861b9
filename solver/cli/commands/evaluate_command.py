"""`eightfold evaluate`: solve a file of problems, record every attempt, and report accuracy."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted
from eightfold.common.terminal_table import Column, format_table
from eightfold.sandbox.platform_support import check_platform

from ...attempts.attempt import Ending
from ...chat.prompt_texts import sets_digest
from ...display.progress_display import ProgressDisplay
from ...evaluation.evaluation_run import Evaluation
from ...evaluation.run_folder import RunFolder, read_run, write_json
from ...evaluation.run_scores import pass_caveat, summarize
from ...model_defaults import ModelInputs, read_model_inputs
from ...problem_set import fingerprint, load_problems
from ...solver_config import MAX_KERNELS, SolverConfig, SolverError
from ...time_budget import Budget, BudgetConfig
from ..exit_codes import ExitCode
from ..solver_options import add_solver_options, named, solver_config, warn_of_truths

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

SCORE_COLUMNS = (Column("score"), Column("value", right=True), Column("95 % interval"), Column(""))
FAMILY_COLUMNS = (Column("family"), Column("right", right=True), Column(""))

logger = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="solve a file of problems and score the answers",
        description="Solve the problems of a .csv or .jsonl file with the columns id, problem and "
        "answer. Each problem and each attempt is recorded in the folder --out as it ends.",
    )
    parser.add_argument("problems", metavar="FILE", help=".csv or .jsonl file of problems")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
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
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the evaluation and print its summary.

    Wrong answers do not change the exit code; attempts that the sandbox failed do.
    """
    if options.parallel < 1:
        raise SolverError(f"--parallel must be at least 1, not {options.parallel}.")
    if options.first is not None and options.first < 1:
        raise SolverError(f"--first must be at least 1, not {options.first}.")
    kernels = max(options.kernels, min(MAX_KERNELS, options.attempts * options.parallel))
    config = solver_config(options, kernels=kernels, problems=options.parallel)
    budget = run_budget(options.limit_time, config)
    problems = load_problems(options.problems)[: options.first]
    warn_of_truths(problems, config)
    check_platform()
    inputs = read_model_inputs(config, progress=not options.quiet)
    logger.info("model: %s", inputs.folder)
    settings = run_settings(options, fingerprint(problems), inputs)
    folder = RunFolder(Path(options.out), settings, options.resume)
    display = ProgressDisplay(sys.stderr, enabled=not options.quiet)
    try:
        if len(folder.finished) < len(problems):
            display.note("loading the model and starting the Python kernels")
            from ...solver import Solver

            with Solver(config, inputs=inputs) as solver:
                if solver.on_gpu:
                    display.line(solver.loop.engine.table())
                if config.model is not None:
                    display.note(solver.protocol.reason)
                evaluation = Evaluation(solver, problems, folder, options.parallel, budget)
                evaluation.run(display)
                if evaluation.out_of_time:
                    said = f"Time is up: {evaluation.status()}; --resume goes on."
                    print(said, file=sys.stderr)
    except KeyboardInterrupt:
        display.clear()
        done = f"{folder.count} of {counted(len(problems), 'problem')} done"
        raise KeyboardInterrupt(f"Interrupted; {done}; --resume goes on.") from None
    finally:
        folder.close()
    records = read_run(folder.folder)
    summary = {"settings": settings, **summarize(records, settings)}
    write_json(folder.folder / "summary.json", summary)
    print_faults([problem for problem, _ in records])
    print_summary(summary)
    print(f"each problem: {folder.folder / 'problems.jsonl'}; attempts.jsonl holds the attempts")
    if options.json:
        print(json.dumps(summary), flush=True)
    if summary["lost"]:
        lost = counted(summary["lost"], "attempt")
        said = f"The sandbox failed in {lost}, whenever they were made; --resume makes them again."
        print(said, file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.OK


def print_faults(problems: Sequence[dict[str, Any]]) -> None:
    """Print each fault once, with the problems in which it happened."""
    found: dict[str, dict[str, None]] = {}
    for problem in problems:
        for fault in problem["faults"]:
            found.setdefault(fault, {})[problem["id"]] = None
    for fault, ids in found.items():
        print(f"fault in {named(list(ids))}: {fault}", file=sys.stderr)


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


def run_settings(options: argparse.Namespace, digest: str, inputs: ModelInputs) -> dict[str, Any]:
    """Return the settings that change a run's results, which must be the same to resume it.

    The number of kernels and the number of problems solved at the same time are not among them.

    Args:
        digest: the fingerprint of the problems.
        inputs: what was read from the model folder; an id's folder is that of its revision.
    """
    names = (
        *("attempts", "early_stop", "turns", "time", "seed", "temperature", "top_p", "top_k"),
        *("min_p", "rule", "tool", "tool_timeout", "max_tokens", "max_context", "limit_time"),
        "reasoning_effort",
    )
    chosen = {name: getattr(options, name) for name in names}
    folder = None if options.model is None else inputs.folder
    model = "bundled" if folder is None else str(folder.resolve())
    prompts = inputs.prompts
    texts: dict[str, Any] = {f"prompt_{name}": text for name, text in prompts.texts.items()}
    texts |= {"prompt_set": prompts.default_set, "prompt_sets": sets_digest()}
    return {"model": model, "problems": digest, **texts, **chosen}


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
