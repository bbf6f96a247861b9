"""`eightfold kaggle rehearse`: pass a file of problems through `predict`, as Kaggle does."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted
from eightfold.sandbox.platform_support import check_platform

from ...attempts.problem_progress import UnderWay
from ...display.progress_display import ProgressDisplay
from ...display.progress_text import duration
from ...kaggle.kaggle_config import RUN_SECONDS, KaggleConfig
from ...kaggle.kaggle_session import MIN_SECONDS, RETURN_SECONDS
from ...problem_set import Problem, load_problems
from ...solver_config import SolverConfig, SolverError
from ...time_budget import BudgetConfig
from ..exit_codes import ExitCode
from ..solver_options import add_devices_option, add_solver_options, solver_config, warn_of_truths

if TYPE_CHECKING:
    from ...attempts.problem_progress import Progress
    from ...kaggle.kaggle_session import Session
    from ..argument_parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "kaggle", help="rehearse a submission", description="Rehearse a submission."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    rehearsal = parts.add_parser(
        "rehearse",
        help="run a file of problems through predict",
        description="Pass the problems to predict one at a time, in random order, check what it "
        "returns, write submission.parquet, and print a score if answers are known.",
    )
    rehearsal.add_argument("problems", metavar="FILE", help=".csv or .jsonl file of problems")
    rehearsal.add_argument(
        "--out",
        default=".",
        metavar="DIR",
        help="folder for submission.parquet and the logs (%(default)s)",
    )
    rehearsal.add_argument(
        "--order", type=int, metavar="N", help="seed of the order; default: a random one"
    )
    rehearsal.add_argument(
        "--limit-time",
        type=float,
        default=RUN_SECONDS,
        metavar="S",
        help="seconds the whole run may take (%(default)g)",
    )
    rehearsal.add_argument(
        "--fallback",
        type=int,
        default=0,
        metavar="N",
        help="answer to a problem that no attempt answered (%(default)s)",
    )
    add_solver_options(rehearsal)
    add_devices_option(rehearsal, default="auto")
    rehearsal.add_argument("--quiet", action="store_true", help="show no progress")
    rehearsal.add_argument("--json", action="store_true", help="end with one line of JSON")
    rehearsal.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rehearse a submission.

    Raises:
        OSError: the gateway would have ended the run.
    """
    from ...kaggle import predict_endpoint
    from ...kaggle.local_gateway import GatewayError, Row, run_gateway
    from ...model_defaults import resolve_model_folder

    problems = load_problems(options.problems)
    config = solver_config(options)
    warn_of_truths(
        [
            one.id
            for one in problems
            if one.answer is not None and not config.low <= one.answer <= config.high
        ],
        config,
    )
    check_platform()
    resolve_model_folder(config.model)
    if find_spec("polars") is None:
        raise SolverError("A rehearsal needs polars; install eightfold[kaggle].")
    out = Path(options.out)
    settings = rehearsal_config(options, config, len(problems), out)
    check_output_folder(out)
    display = ProgressDisplay(sys.stderr, enabled=not options.quiet)
    session = predict_endpoint.start(settings)
    try:
        show_progress(display, session, len(problems))
        rows = [Row(problem.id, problem.text, problem.answer) for problem in problems]
        answers = run_gateway(predict_endpoint.predict, rows, out, seed=options.order)
    except GatewayError as error:
        raise OSError(f"The gateway ended the run: {error}") from error
    except KeyboardInterrupt:
        session.write_log = lambda line: None  # what is said below is the last word
        display.close()
        where = f"; their answers are in {settings.log}" if session.answered else ""
        done = f"{session.answered} of {counted(len(problems), 'problem')} done"
        raise KeyboardInterrupt(f"Interrupted; {done}{where}.") from None
    finally:
        predict_endpoint.stop()
    return report(problems, answers, session.fallbacks, out, options.json)


def show_progress(display: ProgressDisplay, session: Session, problems: int) -> None:
    """Show the run and the attempts at its present problem; the log's lines go between.

    Args:
        display: shows them; the log is written also if it is not enabled.
        session: the run.
        problems: number of problems.
    """

    def show(id_: str, progress: Progress) -> None:
        limit = session.budget.config.limit
        passed = f"{duration(session.budget.spent())} of {duration(limit)}"
        done = f"{session.served - 1}/{counted(problems, 'problem')}"
        status = f"{done} | {counted(session.fallbacks, 'fallback')} | {passed}"
        with suppress(OSError, ValueError):  # a closed stream must not end the run
            display.run_progress(status, [UnderWay(id_, progress)])

    def write_log(line: str) -> None:
        display.clear()
        print(line, file=sys.stderr, flush=True)

    session.on_progress, session.write_log = show, write_log


def rehearsal_config(
    options: argparse.Namespace, config: SolverConfig, problems: int, out: Path
) -> KaggleConfig:
    """Return the settings of a rehearsal.

    Raises:
        SolverError: a value is out of range.
    """
    least = RETURN_SECONDS + MIN_SECONDS
    if config.time < least:
        raise SolverError(
            f"--time must be at least {least:g} s in a rehearsal, not {config.time:g}."
        )
    limit = options.limit_time
    if not 0 < limit < math.inf:
        raise SolverError(f"--limit-time must be a positive number of seconds, not {limit:g}.")
    floor = min(BudgetConfig.floor, config.time)
    return KaggleConfig(
        solver=config,
        problems=problems,
        budget=BudgetConfig(limit=limit, floor=floor, cap=config.time),
        fallback=options.fallback,
        log=out / "kaggle.jsonl",
        traces=out / "attempts.jsonl",
    )


def check_output_folder(out: Path) -> None:
    """Make the folder and write to it, since a run writes its submission only at its end.

    Raises:
        SolverError: it cannot be made, or not be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolverError(f"The folder {out} cannot be made; name another with --out.") from error
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise SolverError(
            f"The folder {out} cannot be written to; name another with --out."
        ) from error


def report(
    problems: list[Problem], answers: dict[str, int], fallbacks: int, out: Path, as_json: bool
) -> ExitCode:
    """Print the answers and the score.

    Returns:
        `ExitCode.NO_ANSWER` if every problem got the fallback, else `ExitCode.OK`.
    """
    known = [problem for problem in problems if problem.answer is not None]
    right = sum(answers[problem.id] == problem.answer for problem in known)
    for problem in problems:
        known_answer = "" if problem.answer is None else f"  (known: {problem.answer})"
        print(f"{problem.id}: {answers[problem.id]}{known_answer}")
    print(f"{right} of {len(known)} right" if known else "no answers are known")
    print(f"{fallbacks} of {len(problems)} got the fallback")
    print(f"written: {out / 'submission.parquet'}")
    if as_json:
        line = {"answers": answers, "known": len(known), "right": right, "fallbacks": fallbacks}
        print(json.dumps(line), flush=True)
    return ExitCode.NO_ANSWER if fallbacks == len(problems) else ExitCode.OK
