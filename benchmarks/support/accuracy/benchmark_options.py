"""The options that `accuracy.py` and `against_generate.py` share, and what is made from them."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.problem_set import Problem, load_problems
from eightfold.solver.solver_config import MAX_KERNELS

if TYPE_CHECKING:
    from support.accuracy.arm_runs import SharedBackend


def add_options(parser: argparse.ArgumentParser, problems: int, max_tokens: int) -> None:
    """Add the options that both benchmarks have.

    Args:
        parser: the parser.
        problems: default of --problems.
        max_tokens: default of --max-tokens.
    """
    add = parser.add_argument
    add("--problems", type=int, default=problems, metavar="N", help="most problems (%(default)s)")
    add("--attempts", type=int, default=8, metavar="N", help="attempts at each (%(default)s)")
    add("--parallel", type=int, default=24, metavar="K", help="problems at a time (%(default)s)")
    add("--rows", type=int, default=192, metavar="N", help="sequences in a step (%(default)s)")
    add("--seed", type=int, default=0, help="of the sample and of the attempts (%(default)s)")
    add(
        *("--max-tokens",),
        type=int,
        default=max_tokens,
        metavar="N",
        help="of an attempt (%(default)s)",
    )
    add("--temperature", type=float, default=0.7, help="of the sampling (%(default)s)")
    add("--top-p", type=float, default=0.8, help="of the sampling (%(default)s)")
    add("--prompts", metavar="FILE", help="TOML file that replaces sentences of the prompt")
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    add("--seconds", type=float, default=460.0, help="time of the whole run (%(default)g)")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> SolverConfig:
    """Return the solver's settings; exit with code 2 and one sentence if an option is wrong."""
    for name in ("problems", "attempts", "parallel", "rows", "max_tokens"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 < options.seconds < 1e6:
        parser.error(f"--seconds must be above 0 and below 1000000, not {options.seconds:g}")
    try:
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
    except SolverError as error:
        parser.error(str(error))


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


def make_backend(model: Path, config: SolverConfig, rows: int, device: str | None) -> SharedBackend:
    """Load the model and start the kernels.

    Args:
        model: folder of the checkpoint.
        config: settings of the solver.
        rows: largest number of sequences in a step.
        device: "cpu" or "cuda"; None takes the GPU if there is one.
    """
    from support.accuracy.arm_runs import SharedBackend

    from eightfold.engine import Engine, EngineConfig
    from eightfold.sandbox import KernelPool, PoolConfig
    from eightfold.solver.models.tokenizer_loading import load_tokenizer
    from eightfold.solver.solver_startup import REWIND_TOKENS

    settings = EngineConfig(
        device=device,
        max_running=rows,
        max_step_tokens=max(512, 8 * rows),
        rewind_tokens=REWIND_TOKENS,
    )
    limits = PoolConfig(
        size=config.kernels, timeout=config.tool_timeout, text_limit=config.output_limit
    )
    pool = KernelPool(limits)
    try:
        return SharedBackend(Engine(model, settings), load_tokenizer(model), pool)
    except BaseException:
        pool.close()
        raise
