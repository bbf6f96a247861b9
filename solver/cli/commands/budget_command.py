"""`eightfold budget`: whether time budgets keep a run within its limit, and what a GPU holds."""

from __future__ import annotations

import argparse
import random
import statistics
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted
from eightfold.common.terminal_table import Column, format_table

from ...solver_config import SolverError
from ...time_budget import PATTERNS, BudgetConfig, SimulatedRun, simulate
from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

COLUMNS = (
    Column("hard ones"),
    Column("longest run", right=True),
    Column("fewest", right=True),
    Column("hard, median", right=True),
    Column("at cap", right=True),
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "budget",
        help="try out the time budget, or what a GPU holds",
        description="Try out the time budget, or see what a GPU holds.",
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    simulation = parts.add_parser(
        "simulate",
        help="simulate random runs and check that the limit holds",
        description="Simulate random runs whose hard problems come first, last, shuffled or "
        "everywhere, and check that no run takes longer than the limit.",
    )
    default = BudgetConfig()
    add = simulation.add_argument
    add("--runs", type=int, default=10_000, metavar="N", help="runs in all (%(default)s)")
    add("--problems", type=int, default=50, metavar="N", help="problems per run (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the simulation (%(default)s)")
    times = {
        "limit": "time of the whole run",
        "reserve": "time kept for each later problem",
        "floor": "least time of a problem",
        "cap": "most time of a problem",
        "margin": "time kept at the end of the run",
    }
    for name, meaning in times.items():
        add(
            f"--{name}",
            type=float,
            default=getattr(default, name),
            metavar="S",
            help=f"{meaning}, in seconds (%(default)g)",
        )
    simulation.set_defaults(run=run)
    memory = parts.add_parser(
        "memory",
        help="what fits GPUs: a model's weights in 16, 8 and 4 bits, and the context beside them",
        description="Show for some sizes of GPU whether a model's weights fit as they are stored, "
        "in FP8 and in 4 bits, and how many tokens of context remain for 8 attempts. No weights "
        "are read.",
    )
    memory.add_argument("model", metavar="MODEL", help="folder or id, as for solve --model")
    memory.add_argument(
        "--gpu",
        type=int,
        nargs="+",
        default=[24, 48, 80],
        metavar="GIB",
        help="memory of the GPUs (24 48 80)",
    )
    memory.set_defaults(run=run_memory)


def run(options: argparse.Namespace) -> int:
    """Simulate the runs and print a table; a run that exceeds the limit gives exit code 1."""
    if options.runs < len(PATTERNS) or options.problems < 1:
        raise SolverError(f"--runs must be at least {len(PATTERNS)} and --problems at least 1.")
    try:
        config = BudgetConfig(
            options.limit, options.reserve, options.floor, options.cap, options.margin
        )
    except ValueError as error:
        raise SolverError(str(error)) from error
    print(
        f"{counted(options.runs, 'run')} of {counted(options.problems, 'problem')}, "
        f"limit {config.limit:g} s"
    )
    rows = []
    exceeded = False
    for pattern in PATTERNS:
        rng = random.Random(f"{options.seed}/{pattern}")
        count = options.runs // len(PATTERNS)
        runs = [simulate(rng, pattern, config, options.problems) for _ in range(count)]
        rows.append(summary_row(pattern, runs, config))
        exceeded = exceeded or any(one.total > config.limit for one in runs)
    print(format_table(COLUMNS, rows))
    print("The limit was exceeded." if exceeded else "The limit was never exceeded.")
    return ExitCode.NO_ANSWER if exceeded else ExitCode.OK


def run_memory(options: argparse.Namespace) -> int:
    """Print what fits GPUs of the given sizes."""
    from eightfold.engine.loading.model_folder import check_model_folder

    from ...kaggle.memory_table import memory_table
    from ...models.model_source import locate_model

    if min(options.gpu) < 1:
        raise SolverError("--gpu takes sizes in GiB, of at least 1.")
    folder = locate_model(options.model)
    check_model_folder(folder)
    print(memory_table(folder, tuple(options.gpu)))
    return ExitCode.OK


def summary_row(
    pattern: str, runs: list[SimulatedRun], config: BudgetConfig
) -> tuple[str, str, str, str, str]:
    """Return the table's cells for the runs of a pattern.

    They are the longest run, the least time granted to any problem, the median time granted to
    hard problems, and how many hard problems of a run got the cap, on average.
    """
    hard = [
        granted
        for one in runs
        for granted, is_hard in zip(one.granted, one.hard, strict=True)
        if is_hard
    ]
    at_cap = sum(granted >= config.cap for granted in hard) / len(runs)
    return (
        pattern,
        f"{max(one.total for one in runs):.0f} s",
        f"{min(min(one.granted) for one in runs):.0f} s",
        f"{statistics.median(hard):.0f} s",
        f"{at_cap:.1f}",
    )
