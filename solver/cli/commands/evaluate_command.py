"""`eightfold evaluate`: a file of problems, a folder of traces, an accuracy."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...chat.prompt_texts import Prompts, prompts_for
from ...evaluation.evaluation_run import Evaluation
from ...evaluation.run_folder import RunFolder, read_run, write_json
from ...evaluation.run_scores import summarise
from ...model_defaults import resolve_model_folder
from ...problem_set import fingerprint, load_problems
from ...progress_display import Display
from ...solver_config import SolverError
from ...time_budget import Budget, BudgetConfig
from ..command_line import OK
from ..common_options import add_solver_options, solver_config


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="solve a file of problems and score the answers",
        description="Solves the problems of a .csv or .jsonl file with the columns id, problem and "
        "answer, and writes a line per problem and a trace per attempt as they end.",
    )
    parser.add_argument("problems", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--limit-time",
        type=float,
        metavar="S",
        help="seconds the whole run may take from the start of the process; each problem then gets "
        "what the budget rule allows, at most --time",
    )
    parser.add_argument("--first", type=int, metavar="N", help="take only the first N problems")
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="K", help="problems at once (%(default)s)"
    )
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the evaluation and prints its summary; exit code 0 also where answers are wrong."""
    if options.parallel < 1:
        raise SolverError(f"parallel must be at least 1, not {options.parallel}.")
    if options.first is not None and options.first < 1:
        raise SolverError(f"first must be at least 1, not {options.first}.")
    kernels = max(options.kernels, min(256, options.attempts * options.parallel))
    config = solver_config(options, kernels=kernels, problems=options.parallel)
    budget = None
    if options.limit_time is not None:
        try:
            budget = Budget(BudgetConfig(limit=options.limit_time, cap=max(config.time, 60.0)))
        except ValueError as error:
            raise SolverError(str(error)) from error
    problems = load_problems(options.problems)[: options.first]
    prompts = prompts_for(resolve_model_folder(config.model), config.prompts)
    settings = run_settings(options, fingerprint(problems), prompts)
    folder = RunFolder(Path(options.out), settings, options.resume)
    display = Display(sys.stderr, enabled=not options.quiet)
    try:
        if len(folder.finished) < len(problems):
            display.note("loading the model and starting the Python kernels")
            from ...solver import Solver

            with Solver(config) as solver:
                if solver.on_gpu:
                    display.line(solver.loop.engine.table())
                evaluation = Evaluation(solver, problems, folder, options.parallel, budget)
                evaluation.run(display)
                if evaluation.out_of_time:
                    print(f"Time is up: {evaluation.status()}; --resume goes on.", file=sys.stderr)
    finally:
        folder.close()
    summary = {"settings": settings, **summarise(read_run(folder.folder), settings)}
    write_json(folder.folder / "summary.json", summary)
    print_summary(summary)
    if options.json:
        print(json.dumps(summary), flush=True)
    return OK


def run_settings(options: argparse.Namespace, digest: str, prompts: Prompts) -> dict[str, Any]:
    """What makes a run what it is; the number of kernels or of problems at once does not."""
    names = (
        *("attempts", "early_stop", "turns", "time", "seed", "temperature", "top_p", "top_k"),
        *("min_p", "rule", "tool_timeout", "max_tokens", "max_context", "limit_time"),
    )
    chosen = {name: getattr(options, name) for name in names}
    model = "bundled" if options.model is None else str(Path(options.model).resolve())
    texts = {f"prompt_{name}": text for name, text in asdict(prompts).items()}
    return {"model": model, "problems": digest, **texts, **chosen}


def print_summary(summary: dict[str, Any]) -> None:
    """The figures in a few lines."""
    if "accuracy" not in summary["scores"]:
        print("no problem with a known answer is done")
    for name, score in summary["scores"].items():
        interval = f"[{score['low']:.1%}, {score['high']:.1%}]"
        print(f"{name:<10}{score['value']:>7.1%}  {interval}  of {score['problems']} problems")
    for name, family in summary["families"].items():
        print(f"  {name:<28}{family['right']:>4} of {family['problems']}")
    print(
        f"{summary['problems']} problems, {summary['attempts']} attempts, "
        f"{summary['tokens']} tokens, {summary['calls']} tool calls, {summary['errors']} errors, "
        f"{summary['seconds']:.0f} s in problems, {summary['faults']} faults"
    )
    for title, key in (("errors", "errors_by_kind"), ("attempts", "endings")):
        counts = ", ".join(f"{name} {count}" for name, count in summary[key].items())
        print(f"{title}: {counts or 'none'}")
