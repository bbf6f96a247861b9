"""Answer quality on real problems: no tool, the tool, and the tool with an early stop.

    python benchmarks/accuracy.py MODEL PROBLEMS [--parts DIR] [--problems 64] [--out DIR]

MODEL is the folder of a checkpoint. With --parts, it is built first from the parts in that folder
if it does not exist (`support/accuracy/registry_checkpoint.py`). PROBLEMS is a .csv or .jsonl file
with id, problem and answer, of which a random sample is taken; problems whose answer is not in the
solver's range are left out.

The solver, as `eightfold evaluate` runs it, makes the attempts at each problem in every arm, with
the same seeds. All arms share one engine. The tool's arm comes first and decides how many problems
fit into its share of the time; the others repeat those. The figures are over the problems that
every arm finished. An attempt that was cut off by the time has no answer, and "cut" counts them.

pass@k is the unbiased estimate over all attempts; in the arm with the early stop, attempts that
were cancelled are not judged, so that pass@k is missing there. Intervals are of 95 %: Wilson's for
votes, from a bootstrap over problems for means and differences. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.accuracy.registry_checkpoint import PartsError, build_checkpoint

from eightfold.common.terminal_table import Column, format_table
from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.problem_set import Problem, load_problems
from eightfold.solver.solver_config import MAX_KERNELS
from eightfold.solver.time_budget import process_age

if TYPE_CHECKING:
    from support.accuracy.arm_runs import Arm, ArmResult, SharedBackend

NAMES = ("tool", "no tool", "early stop")
MARGIN = 10.0
"""Seconds kept for the figures behind the last arm."""


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("model", type=Path, help="folder of the checkpoint")
    add("file", metavar="problems", help=".csv or .jsonl file with id, problem and answer")
    add("--parts", type=Path, metavar="DIR", help="build the checkpoint from the parts in DIR")
    add("--problems", type=int, default=64, metavar="N", help="most problems (%(default)s)")
    add("--attempts", type=int, default=8, metavar="N", help="attempts at each (%(default)s)")
    add("--parallel", type=int, default=24, metavar="K", help="problems at a time (%(default)s)")
    add("--rows", type=int, default=128, metavar="N", help="sequences in a step (%(default)s)")
    add("--seed", type=int, default=0, help="of the sample and of the attempts (%(default)s)")
    add("--max-tokens", type=int, default=2048, metavar="N", help="of an attempt (%(default)s)")
    add("--temperature", type=float, default=0.7, help="of the sampling (%(default)s)")
    add("--top-p", type=float, default=0.8, help="of the sampling (%(default)s)")
    add("--prompts", metavar="FILE", help="TOML file that replaces sentences of the prompt")
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    add("--arms", default=",".join(NAMES), help="out of %(default)s")
    add("--seconds", type=float, default=460.0, help="time of the whole run (%(default)g)")
    add("--out", type=Path, metavar="DIR", help="keep the attempts there, a folder for each arm")
    options = parser.parse_args()
    for name in ("problems", "attempts", "parallel", "rows", "max_tokens"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 < options.seconds < 1e6:
        parser.error(f"--seconds must be above 0 and below 1000000, not {options.seconds:g}")
    chosen = options.arms.split(",")
    if not chosen or not set(chosen) <= set(NAMES):
        parser.error(f"--arms takes {', '.join(NAMES)}, separated by commas")
    options.arms = [name for name in NAMES if name in chosen]
    if options.out is not None and options.out.exists():
        parser.error(f"{options.out} exists; name a folder that may be created")
    try:
        options.config = solver_config(options)
        options.sample = sample_problems(options.file, options.problems, options.config)
    except SolverError as error:
        parser.error(str(error))
    return options


def solver_config(options: argparse.Namespace) -> SolverConfig:
    """Return the settings that all arms share.

    Raises:
        SolverError: if a value is out of range.
    """
    return SolverConfig(
        model=options.model,
        attempts=options.attempts,
        seed=options.seed,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        prompts=options.prompts,
        kernels=min(MAX_KERNELS, options.attempts * options.parallel),
        problems=options.parallel,
    )


def sample_problems(path: str, count: int, config: SolverConfig) -> list[Problem]:
    """Return a random sample of the problems whose answer is in the solver's range.

    Raises:
        SolverError: if the file cannot be used or has no such problem.
    """
    usable = [
        one
        for one in load_problems(path)
        if one.answer is not None and config.low <= one.answer <= config.high
    ]
    if not usable:
        raise SolverError(f"{path} has no problem with an answer in the solver's range.")
    return random.Random(config.seed).sample(usable, min(count, len(usable)))


def make_backend(options: argparse.Namespace) -> SharedBackend:
    """Load the model and start the kernels."""
    from support.accuracy.arm_runs import SharedBackend

    from eightfold.engine import Engine, EngineConfig
    from eightfold.sandbox import KernelPool, PoolConfig
    from eightfold.solver.models.tokenizer_loading import load_tokenizer

    config: SolverConfig = options.config
    step_tokens = max(512, 8 * options.rows)
    settings = EngineConfig(
        device=options.device, max_running=options.rows, max_step_tokens=step_tokens
    )
    limits = PoolConfig(
        size=config.kernels, timeout=config.tool_timeout, text_limit=config.output_limit
    )
    pool = KernelPool(limits)
    try:
        return SharedBackend(Engine(options.model, settings), load_tokenizer(options.model), pool)
    except BaseException:
        pool.close()
        raise


def run_arms(options: argparse.Namespace, folder: Path) -> list[ArmResult]:
    """Run the arms one after another, and return what they did."""
    from support.accuracy.arm_runs import ARMS, arm_seconds, run_arm

    arms: list[Arm] = [arm for arm in ARMS if arm.name in options.arms]
    backend = make_backend(options)
    problems: list[Problem] = options.sample
    results: list[ArmResult] = []
    try:
        for index, arm in enumerate(arms):
            left = options.seconds - MARGIN - process_age()
            seconds = max(1.0, arm_seconds(arms, index, left))
            result = run_arm(arm, options.config, backend, problems, folder, seconds)
            done = {problem["id"] for problem, _ in result.records}
            problems = [one for one in problems if one.id in done]
            results.append(result)
    finally:
        backend.pool.close()
    return results


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
    from support.accuracy.arm_figures import arm_figures, differences
    from support.accuracy.arm_runs import common_records

    common = common_records(results)
    if not common[0].records:
        print("No problem was finished in every arm; give the run more --seconds.", file=sys.stderr)
        return 3
    arms = {result.arm.name: arm_figures(result, options.attempts) for result in common}
    found = differences(common)
    print_table(arms, found)
    settings = {
        name: getattr(options, name)
        for name in ("attempts", "parallel", "rows", "seed", "max_tokens", "temperature", "top_p")
    }
    summary = {
        "benchmark": "accuracy",
        "model": options.model.name,
        "problems": Path(options.file).name,
        "prompts": options.prompts and Path(options.prompts).name,
        **settings,
        "seconds": round(process_age(), 1),
        "arms": arms,
        "differences": found,
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
