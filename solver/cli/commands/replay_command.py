"""`eightfold replay`: other votes on the traces of a run, without model or kernels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ...attempts.voting import RULES
from ...evaluation.run_folder import read_run
from ...evaluation.run_scores import pass_score, vote_score
from ...solver_config import SolverError
from ..command_line import OK


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="vote again on the traces of a run",
        description="Votes again on the traces of a run by one rule, or by all side by side, with "
        "95 %% intervals (Wilson for votes, bootstrap over problems for pass@k).",
    )
    parser.add_argument("runs", nargs="+", metavar="DIR", help="folders of runs")
    parser.add_argument("--rule", choices=sorted(RULES), help="only this rule")
    parser.add_argument(
        "--early-stop",
        type=int,
        default=0,
        metavar="K",
        help="take the attempts as they ended and stop when K agree (0: all count)",
    )
    parser.add_argument("--attempts", type=int, metavar="N", help="only the first N attempts")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table."""
    if options.early_stop < 0 or (options.attempts is not None and options.attempts < 1):
        raise SolverError("--early-stop must be at least 0 and --attempts at least 1.")
    rules = [options.rule] if options.rule else list(RULES)
    table = []
    for folder in options.runs:
        records = read_run(Path(folder))
        most = max((len(tries) for _, tries in records), default=0)
        count = min(options.attempts or most, most)
        print(f"{folder}: {len(records)} problems, {count} attempts each")
        scores = [pass_score(records, k, count) for k in sorted({1, count}) if k >= 1]
        scores += [vote_score(records, rule, options.early_stop, count) for rule in rules]
        if not any(scores):
            print("  no problem with a known answer is done")
        for score in scores:
            if score is not None:
                print(f"  {score.name:<20}{score}")
                table.append({"run": folder, **vars(score)})
    if options.json:
        print(json.dumps(table), flush=True)
    return OK
