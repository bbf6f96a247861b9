"""`eightfold kaggle rehearse`: a file of problems through `predict`, as in the competition."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eightfold.solver.cli import FAILED, OK
from eightfold.solver.commands.options import add_solver_options, solver_config
from eightfold.solver.config import SolverError
from eightfold.solver.problemset import Problem, load_problems


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "kaggle", help="rehearse a submission", description="Rehearses a submission."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    play = parts.add_parser(
        "rehearse",
        help="run a file of problems through predict",
        description="Passes the problems one at a time, shuffled, to predict, checks what comes "
        "back, writes submission.parquet and prints a score where answers are known.",
    )
    play.add_argument("problems", metavar="FILE", help=".csv or .jsonl with id, problem, answer")
    play.add_argument("--out", default=".", metavar="DIR", help="for submission.parquet and log")
    play.add_argument("--order", type=int, metavar="N", help="seed of the order; default: any")
    play.add_argument(
        "--limit-time", type=float, default=17_700.0, metavar="S", help="whole run (%(default)g)"
    )
    play.add_argument(
        "--fallback", type=int, default=0, metavar="N", help="where none answers (%(default)s)"
    )
    play.add_argument("--give-answers", action="store_true", help="pass the third column too")
    add_solver_options(play)
    play.add_argument("--json", action="store_true", help="end with one line of JSON")
    play.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rehearses; FAILED where the gateway would have ended the run."""
    from eightfold.solver import kaggle
    from eightfold.solver.budget import BudgetConfig
    from eightfold.solver.checkpoint import model_folder
    from eightfold.solver.gateway import GatewayError, Row, run_gateway

    problems = load_problems(options.problems)
    config = solver_config(options)
    model_folder(config.model)
    if find_spec("polars") is None:
        raise SolverError("A rehearsal needs polars; install eightfold[kaggle].")
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise SolverError(f"{out} is no folder; name another with --out.")
    out.mkdir(parents=True, exist_ok=True)
    try:
        budget = BudgetConfig(limit=options.limit_time, cap=max(config.time, 60.0))
    except ValueError as error:
        raise SolverError(str(error)) from error
    settings = kaggle.KaggleConfig(
        solver=config,
        problems=len(problems),
        budget=budget,
        fallback=options.fallback,
        log=out / "kaggle.jsonl",
        traces=out / "attempts.jsonl",
    )
    kaggle.start(settings)
    rows = [Row(problem.id, problem.text, problem.answer) for problem in problems]
    try:
        answers = run_gateway(
            kaggle.predict, rows, out, seed=options.order, give_answers=options.give_answers
        )
    except GatewayError as error:
        raise OSError(f"the gateway ended the run: {error}") from error
    finally:
        kaggle.stop()
    return report(problems, answers, out, options.json)


def report(problems: list[Problem], answers: dict[str, int], out: Path, as_json: bool) -> int:
    """Prints the answers and the score."""
    known = [problem for problem in problems if problem.answer is not None]
    right = sum(answers[problem.id] == problem.answer for problem in known)
    for problem in problems:
        told = "" if problem.answer is None else f"  (known: {problem.answer})"
        print(f"{problem.id}: {answers[problem.id]}{told}")
    print(f"{right} of {len(known)} right" if known else "no answers are known")
    print(f"written: {out / 'submission.parquet'}")
    if as_json:
        print(json.dumps({"answers": answers, "known": len(known), "right": right}), flush=True)
    return OK if len(answers) == len(problems) else FAILED
