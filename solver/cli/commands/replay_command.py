"""`eightfold replay`: vote again on the recorded attempts of a run, without model or kernels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted
from eightfold.common.terminal_table import Column, format_table

from ...attempts.attempt import Ending
from ...attempts.voting import RULES
from ...evaluation.run_reader import read_run
from ...evaluation.run_scores import Score, pass_caveat, pass_score, vote_score
from ...solver_config import SolverError
from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

COLUMNS = (Column("score"), Column("value", right=True), Column("95 % interval"), Column(""))


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "replay",
        help="vote again on the attempts of a run",
        description="Vote again on the recorded attempts of a run by one rule, or by all rules "
        "side by side, with 95 % intervals (Wilson's for votes, bootstrap over problems for "
        "pass@k).",
    )
    parser.add_argument("runs", nargs="+", metavar="DIR", help="folders of runs")
    parser.add_argument("--rule", choices=sorted(RULES), help="only this rule")
    parser.add_argument(
        "--early-stop",
        type=int,
        default=0,
        metavar="K",
        help="take the attempts in the order they ended and stop when K agree; 0 counts all "
        "(%(default)s)",
    )
    parser.add_argument("--attempts", type=int, metavar="N", help="only the first N attempts")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a table of scores for each run."""
    if options.early_stop < 0 or (options.attempts is not None and options.attempts < 1):
        raise SolverError("--early-stop must be at least 0 and --attempts at least 1.")
    rules = [options.rule] if options.rule else list(RULES)
    records = []
    for folder in options.runs:
        run_records = read_run(Path(folder))
        most = max((len(attempts) for _, attempts in run_records), default=0)
        count = min(options.attempts or most, most)
        print(f"{folder}: {counted(len(run_records), 'problem')}, {counted(count, 'attempt')} each")
        found = [pass_score(run_records, k, count) for k in sorted({1, count}) if k >= 1]
        found += [vote_score(run_records, rule, options.early_stop, count) for rule in rules]
        scores = [score for score in found if score is not None]
        if scores:
            print(format_table(COLUMNS, map(score_row, scores), plain_titles=False, indent=2))
        else:
            print("  no problem with a known answer is done")
        cancelled = sum(
            one["ending"] == Ending.CONSENSUS for _, tries in run_records for one in tries
        )
        if cancelled and any(score.name.startswith("pass@") for score in scores):
            print(f"  {pass_caveat(cancelled)}")
        records += [{"run": folder, **vars(score)} for score in scores]
    if options.json:
        print(json.dumps(records), flush=True)
    return ExitCode.OK


def score_row(score: Score) -> tuple[str, str, str, str]:
    """Return the table's cells for a score."""
    interval = f"[{score.low:.1%}, {score.high:.1%}]"
    return score.name, f"{score.value:.1%}", interval, f"n={score.count}"
