"""Answer quality on real problems: no tool, the tool, and the tool with an early stop.

    python benchmarks/accuracy.py MODEL PROBLEMS... [--parts DIR] [--problems 64] [--out DIR]

MODEL is the folder of a checkpoint. With --parts, it is built first from the parts in that folder
if it does not exist (`support/accuracy/registry_checkpoint.py`). Each of PROBLEMS is a .csv or
.jsonl file with id, problem and answer, of which a random sample is taken; problems whose answer is
not in the solver's range are left out.

The solver, as `eightfold evaluate` runs it, makes the attempts at each problem in every arm, with
the same seeds. All arms share one engine. --also adds an arm with the tool and other prompts, for
the first of PROBLEMS.
Problems run in rounds of --parallel that start at once; what fits into the time is decided by
`support/accuracy/round_schedule.py`. The figures are over the problems that every arm finished.
An attempt that was cut off by the time has no answer, and "cut" counts them.

pass@k is the unbiased estimate over all attempts; in the arm with the early stop, attempts that
were cancelled are not judged, so that pass@k is missing there. Intervals are of 95 %: Wilson's for
votes, from a bootstrap over problems for means and differences. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.accuracy.benchmark_options import (
    add_options,
    check_options,
    make_backend,
    sample_problems,
)
from support.accuracy.registry_checkpoint import PartsError, build_checkpoint

from eightfold.common.terminal_table import Column, format_table
from eightfold.solver import SolverError
from eightfold.solver.problem_set import Problem
from eightfold.solver.time_budget import process_age

if TYPE_CHECKING:
    from support.accuracy.arm_runs import Arm, ArmResult

NAMES = ("tool", "no tool", "early stop")
MARGIN = 10.0
"""Seconds kept for the figures behind the last arm."""


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("model", type=Path, help="folder of the checkpoint")
    add("files", metavar="problems", nargs="+", help=".csv or .jsonl files")
    add("--parts", type=Path, metavar="DIR", help="build the checkpoint from the parts in DIR")
    add_options(parser, problems=64, max_tokens=2048)
    add(
        *("--also",),
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="one more arm with the tool and the prompts of this file, for the first problems",
    )
    add("--arms", default=",".join(NAMES), help="out of %(default)s")
    add("--out", type=Path, metavar="DIR", help="keep the attempts there, a folder for each arm")
    options = parser.parse_args()
    options.config = check_options(parser, options)
    chosen = options.arms.split(",")
    if not chosen or not set(chosen) <= set(NAMES):
        parser.error(f"--arms takes {', '.join(NAMES)}, separated by commas")
    options.arms = [name for name in NAMES if name in chosen]
    if options.out is not None and options.out.exists():
        parser.error(f"{options.out} exists; name a folder that may be created")
    names = [Path(file).stem for file in options.files]
    if len({*names}) < len(names) or len({path.stem for path in options.also}) < len(options.also):
        parser.error("files must have different names")
    try:
        options.samples = {
            Path(file).stem: sample_problems(file, options.problems, options.config)
            for file in options.files
        }
    except SolverError as error:
        parser.error(str(error))
    return options


def chosen_arms(options: argparse.Namespace) -> dict[str, list[Arm]]:
    """Return each file's arms in the order in which they run: those that decide most come first."""
    from support.accuracy.arm_runs import EARLY_STOP, NO_TOOL, TOOL, Arm

    first = [arm for arm in (TOOL, NO_TOOL) if arm.name in options.arms]
    also = [Arm(path.stem, prompts=path) for path in options.also]
    last = [arm for arm in (EARLY_STOP,) if arm.name in options.arms]
    return {
        name: [*first, *([] if index else also), *last]
        for index, name in enumerate(options.samples)
    }


def run_arms(options: argparse.Namespace, folder: Path) -> dict[str, list[ArmResult]]:
    """Run the arms on all files; return each file's results."""
    from support.accuracy.arm_runs import run_arm
    from support.accuracy.round_schedule import RoundSchedule

    backend = make_backend(options.model, options.config, options.rows, options.device)
    print(backend.engine.table(), file=sys.stderr)

    def run(arm: Arm, name: str, problems: Sequence[Problem], seconds: float) -> ArmResult:
        place = folder / name / arm.name.replace(" ", "_")
        return run_arm(arm, options.config, backend, problems, place, seconds)

    def show(name: str, results: list[ArmResult]) -> None:
        print(f"\n{name} after {process_age():.0f} s", flush=True)
        print_file(name, results, options.attempts)

    def time_left() -> float:
        return float(options.seconds - MARGIN - process_age())

    try:
        schedule = RoundSchedule(chosen_arms(options), run, time_left, show)
        schedule.run(options.samples, options.parallel)
        return schedule.results
    finally:
        backend.pool.close()


def print_file(name: str, results: Sequence[ArmResult], attempts: int) -> dict[str, Any] | None:
    """Print a file's figures; return them, or None if no problem was finished in every arm."""
    from support.accuracy.arm_figures import arm_figures, differences
    from support.accuracy.arm_runs import common_records

    common = common_records(results)
    if not common[0].records:
        return None
    arms = {result.arm.name: arm_figures(result, attempts) for result in common}
    found = differences(common)
    print_table(arms, found)
    sys.stdout.flush()
    return {"arms": arms, "differences": found}


def print_table(
    arms: dict[str, dict[str, Any]], differences: dict[str, dict[str, float] | None]
) -> None:
    """Print the scores and counts of all arms, a column for each, and their differences."""
    rows: list[list[str]] = []
    first = next(iter(arms.values()))
    for name in first["scores"]:
        rows.append([name, *(percent(figures["scores"][name]) for figures in arms.values())])
    cells = {
        "problems": lambda f: str(f["problems"]),
        "tokens of an attempt": lambda f: f"{f['tokens_per_attempt']:.0f}",
        "attempts with code / that ran it": lambda f: (
            f"{f['attempts_with_code']} / {f['of_these_ran_code']} of {f['attempts']}"
        ),
        "calls / failed": lambda f: f"{f['calls']} / {f['errors']}",
        "asked for a box / answered": lambda f: f"{f['nudged']} / {f['answered']}",
        "cut off by time / by length": lambda f: (
            f"{f['endings'].get('time', 0)} / {f['endings'].get('token limit', 0)}"
        ),
        "ended for repeated failures": lambda f: str(f["endings"].get("repeated failed calls", 0)),
        "time": lambda f: f"{f['seconds']:.0f} s",
        "sampled": lambda f: f"{f['tokens_per_second']:.0f} tok/s",
    }
    rows += [[name, *map(show, arms.values())] for name, show in cells.items()]
    columns = (Column(""), *(Column(name) for name in arms))
    print(format_table(columns, rows))
    for name, figures in arms.items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in figures["errors_by_kind"].items())
        print(f"errors, {name}: {kinds or 'none'}")
    for name, score in differences.items():
        print(f"{name}: {percent(score, sign='+')}")


def percent(score: dict[str, float] | None, sign: str = "") -> str:
    """Return a score and its interval in percent."""
    if score is None:
        return "-"
    low, high = (f"{100 * score[key]:{sign}.0f}" for key in ("low", "high"))
    return f"{100 * score['value']:{sign}.1f} % [{low}, {high}]"


def main() -> int:
    options = parse_options()
    # OpenMP's waiting threads must not take the cores from the kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if options.parts is not None:
            print(build_checkpoint(options.parts, options.model), file=sys.stderr)
        with tempfile.TemporaryDirectory() as place:
            results = run_arms(options, options.out or Path(place))
    except (SolverError, PartsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    files = {}
    for name, found in results.items():
        print(f"\n{name}")
        figures = print_file(name, found, options.attempts)
        if figures is not None:
            files[name] = figures
    if not files:
        print("No problem was finished in every arm; give the run more --seconds.", file=sys.stderr)
        return 3
    settings = {
        name: getattr(options, name)
        for name in ("attempts", "parallel", "rows", "seed", "max_tokens", "temperature", "top_p")
    }
    summary = {
        "benchmark": "accuracy",
        "model": options.model.name,
        "prompts": options.prompts and Path(options.prompts).name,
        **settings,
        "seconds": round(process_age(), 1),
        "files": files,
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
