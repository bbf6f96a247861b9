"""`eightfold budget simulate`: does a run keep its limit, and which problem gets how much."""

from __future__ import annotations

import argparse
import random
import statistics
from typing import Any

from ...solver_config import SolverError
from ...time_budget import PATTERNS, BudgetConfig, SimulatedRun, simulate
from ..command_line import OK


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "budget", help="try out the time budget", description="Tries out the time budget."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    play = parts.add_parser(
        "simulate",
        help="play random runs and tell whether the limit holds",
        description="Plays random runs with the hard problems first, last, shuffled or everywhere.",
    )
    default = BudgetConfig()
    play.add_argument("--runs", type=int, default=10_000, metavar="N", help="(%(default)s)")
    play.add_argument("--problems", type=int, default=50, metavar="N", help="(%(default)s)")
    play.add_argument("--seed", type=int, default=0, metavar="N")
    for name in ("limit", "reserve", "floor", "cap", "margin"):
        play.add_argument(
            f"--{name}",
            type=float,
            default=getattr(default, name),
            metavar="S",
            help="seconds (%(default)g)",
        )
    play.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints a table; exit code 1 where a run passed the limit."""
    if options.runs < len(PATTERNS) or options.problems < 1:
        raise SolverError(f"--runs must be at least {len(PATTERNS)} and --problems at least 1.")
    try:
        config = BudgetConfig(
            options.limit, options.reserve, options.floor, options.cap, options.margin
        )
    except ValueError as error:
        raise SolverError(str(error)) from error
    print(f"{options.runs} runs of {options.problems} problems, limit {config.limit:g} s")
    print(f"{'hard ones':<12}{'longest run':>12}{'fewest':>8}{'hard, median':>14}{'at cap':>8}")
    passed = False
    for pattern in PATTERNS:
        rng = random.Random(f"{options.seed}/{pattern}")
        count = options.runs // len(PATTERNS)
        runs = [simulate(rng, pattern, config, options.problems) for _ in range(count)]
        print(row(pattern, runs, config))
        passed = passed or any(one.total > config.limit for one in runs)
    print("The limit was passed." if passed else "The limit was never passed.")
    return int(passed) if passed else OK


def row(pattern: str, runs: list[SimulatedRun], config: BudgetConfig) -> str:
    """A pattern's longest run, least grant, median grant of hard problems, and those at the cap."""
    hard = [
        given for one in runs for given, hard in zip(one.granted, one.hard, strict=True) if hard
    ]
    at_cap = sum(given >= config.cap for given in hard) / len(runs)
    return (
        f"{pattern:<12}{max(one.total for one in runs):>10.0f} s"
        f"{min(min(one.granted) for one in runs):>6.0f} s"
        f"{statistics.median(hard):>12.0f} s{at_cap:>8.1f}"
    )
