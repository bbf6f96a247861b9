"""`eightfold kaggle rehearse`: a file of problems through `predict`, as in the competition."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...problem_set import Problem, load_problems
from ...solver_config import SolverConfig, SolverError
from ..command_line import NO_ANSWER, OK
from ..common_options import add_solver_options, solver_config

if TYPE_CHECKING:
    from ...kaggle.predict_endpoint import KaggleConfig


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
    add_solver_options(play)
    play.add_argument("--json", action="store_true", help="end with one line of JSON")
    play.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rehearses.

    Raises:
        OSError: the gateway would have ended the run.
    """
    from ...kaggle import predict_endpoint
    from ...kaggle.gateway_stand_in import GatewayError, Row, run_gateway
    from ...model_defaults import resolve_model_folder

    problems = load_problems(options.problems)
    config = solver_config(options)
    resolve_model_folder(config.model)
    if find_spec("polars") is None:
        raise SolverError("A rehearsal needs polars; install eightfold[kaggle].")
    out = Path(options.out)
    settings = rehearsal(options, config, len(problems), out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolverError(f"{out} cannot be made a folder; name another with --out.") from error
    try:
        with tempfile.TemporaryFile(dir=out):
            pass  # found out before the run: what it writes comes at the end
    except OSError as error:
        raise SolverError(f"{out} cannot be written to; name another with --out.") from error
    session = predict_endpoint.start(settings)
    rows = [Row(problem.id, problem.text, problem.answer) for problem in problems]
    try:
        answers = run_gateway(predict_endpoint.predict, rows, out, seed=options.order)
    except GatewayError as error:
        raise OSError(f"the gateway ended the run: {error}") from error
    finally:
        predict_endpoint.stop()
    return report(problems, answers, session.fallbacks, out, options.json)


def rehearsal(
    options: argparse.Namespace, config: SolverConfig, problems: int, out: Path
) -> KaggleConfig:
    """The settings of a rehearsal.

    Raises:
        SolverError: a value is out of range.
    """
    from ...kaggle.kaggle_session import RETURN_SECONDS, SHORTEST, KaggleConfig
    from ...time_budget import BudgetConfig

    least = RETURN_SECONDS + SHORTEST
    if config.time < least:
        raise SolverError(f"time must be at least {least:g} s in a rehearsal, not {config.time:g}.")
    limit = options.limit_time
    if not 0 < limit < math.inf:
        raise SolverError(f"limit-time must be a positive number of seconds, not {limit:g}.")
    return KaggleConfig(
        solver=config,
        problems=problems,
        budget=BudgetConfig(limit=limit, floor=min(60.0, config.time), cap=config.time),
        fallback=options.fallback,
        log=out / "kaggle.jsonl",
        traces=out / "attempts.jsonl",
    )


def report(
    problems: list[Problem], answers: dict[str, int], fallbacks: int, out: Path, as_json: bool
) -> int:
    """Prints the answers and the score; `NO_ANSWER` where every one of them is the fallback."""
    known = [problem for problem in problems if problem.answer is not None]
    right = sum(answers[problem.id] == problem.answer for problem in known)
    for problem in problems:
        told = "" if problem.answer is None else f"  (known: {problem.answer})"
        print(f"{problem.id}: {answers[problem.id]}{told}")
    print(f"{right} of {len(known)} right" if known else "no answers are known")
    print(f"{fallbacks} of {len(problems)} got the fallback")
    print(f"written: {out / 'submission.parquet'}")
    if as_json:
        line = {"answers": answers, "known": len(known), "right": right, "fallbacks": fallbacks}
        print(json.dumps(line), flush=True)
    return NO_ANSWER if fallbacks == len(problems) else OK
