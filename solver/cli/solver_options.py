"""The options that configure a solver, shared by `solve`, `evaluate` and `kaggle rehearse`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted

from ..attempts.voting import DEFAULT_RULE, RULES
from ..chat.template_options import EFFORTS
from ..devices.device_list import AUTO, parse_devices
from ..problem_set import Columns, ProblemSet
from ..problems.dataset_source import open_problems
from ..solver_config import SolverConfig, SolverError

if TYPE_CHECKING:
    from eightfold.engine import EngineConfig


def add_solver_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `solver_config` reads."""
    default = SolverConfig()
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        help="model folder, or id of a Hugging Face model, org/name or org/name@revision, which is "
        "downloaded unless it is in the local cache; default: the bundled model",
    )
    add(
        "--attempts",
        type=int,
        default=default.attempts,
        metavar="N",
        help="attempts at a problem, made in parallel (%(default)s)",
    )
    add(
        "--early-stop",
        type=int,
        default=default.early_stop,
        metavar="K",
        help="number of equal answers that end a problem; 0 waits for all attempts (%(default)s)",
    )
    add(
        "--no-tool",
        dest="tool",
        action="store_false",
        help="run no Python: the model is told of no tool, and code is text",
    )
    add(
        "--turns",
        type=int,
        default=default.turns,
        metavar="N",
        help="rounds of tool calls per attempt (%(default)s)",
    )
    add(
        "--time",
        type=float,
        default=default.time,
        metavar="S",
        help="seconds a problem may take (%(default)g)",
    )
    add("--seed", type=int, default=default.seed, metavar="N", help="seed of the run (%(default)s)")
    _add_sampling_options(parser)
    _add_vote_and_tool_options(parser, default)
    _add_prompt_options(parser)
    _add_engine_options(parser, default)


def _add_vote_and_tool_options(parser: argparse.ArgumentParser, default: SolverConfig) -> None:
    add = parser.add_argument
    add(
        "--rule",
        choices=sorted(RULES),
        default=DEFAULT_RULE,
        help="rule of the vote over the attempts' answers (%(default)s)",
    )
    add(
        "--tool-timeout",
        type=float,
        default=default.tool_timeout,
        metavar="S",
        help="seconds a tool call may take (%(default)g)",
    )
    add(
        "--kernels",
        type=int,
        default=default.kernels,
        metavar="N",
        help="Python kernels in use at the same time (%(default)s)",
    )


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--reasoning-effort",
        choices=EFFORTS,
        help="how long the model is asked to think; only for gpt-oss, whose default here is high",
    )
    add("--prompts", metavar="FILE", help="TOML file that replaces sentences of the prompt")


def _add_engine_options(parser: argparse.ArgumentParser, default: SolverConfig) -> None:
    add = parser.add_argument
    add(
        "--speculate",
        default=default.speculate,
        metavar="DRAFTER",
        help="what drafts tokens to verify: auto, off, ngram or a drafter's folder; tokens stay "
        "the same (%(default)s)",
    )
    add("--max-tokens", type=int, metavar="N", help="most tokens an attempt may generate in all")
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    add(
        "--weights",
        choices=("fp8",),
        help="round the weights of an unquantized model to 8 bits while it is loaded; default: as "
        "they are stored",
    )
    add(
        "--kv",
        choices=("fp8",),
        help="keep keys and values of full attention in 8 bits; default: in the activations' type",
    )
    add(
        "--max-context",
        type=int,
        metavar="N",
        help="most tokens of one attempt, the prompt included",
    )


def add_devices_option(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option `--devices`, which `solver_config` reads."""
    what = "one" if default is None else "%(default)s"
    parser.add_argument(
        "--devices",
        default=default,
        metavar="LIST",
        help="run an engine on each of these devices, and spread the work over them: auto for all "
        f"GPUs, or a list such as cuda:0,cuda:1 ({what})",
    )


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    sampling = "default: the checkpoint's generation_config.json, else "
    add("--temperature", type=float, metavar="T", help=sampling + "1")
    add("--top-p", type=float, metavar="P", help=sampling + "1")
    add("--top-k", type=int, metavar="K", help=sampling + "0 (all tokens)")
    add("--min-p", type=float, metavar="P", help=sampling + "0")


def solver_config(options: argparse.Namespace, **changes: Any) -> SolverConfig:
    """Return the configuration that the options describe.

    Args:
        options: parsed options, those of `add_solver_options` among them.
        changes: fields of `SolverConfig` that replace the options' values.

    Raises:
        SolverError: a value is out of range.
    """
    names = (
        *(
            "model",
            "attempts",
            "early_stop",
            "tool",
            "turns",
            "time",
            "seed",
            "temperature",
            "top_p",
        ),
        *("top_k", "min_p", "rule", "tool_timeout", "kernels", "reasoning_effort", "prompts"),
        *("max_tokens", "speculate"),
    )
    devices = getattr(options, "devices", None)
    if options.device is not None and devices not in (None, AUTO):
        raise SolverError("Give --device or --devices, not both.")
    values = {name: getattr(options, name) for name in names}
    values |= {"devices": parse_devices(devices)} | changes
    config = SolverConfig(**values)
    return replace(config, engine=_engine_config(options, config.running))


def _engine_config(options: argparse.Namespace, running: int) -> EngineConfig | None:
    """Return the engine's settings if an option sets any, else None."""
    values = {name: getattr(options, name) for name in ("device", "max_context", "weights", "kv")}
    if not any(value is not None for value in values.values()):
        return None
    from eightfold.engine import EngineConfig

    try:
        return EngineConfig(max_running=running, speculate=options.speculate, **values)
    except ValueError as error:
        raise SolverError(str(error)) from error


def add_problem_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_problems` reads."""
    default = Columns()
    add = parser.add_argument
    add(
        "--id",
        default=default.id,
        metavar="COLUMN",
        help="column of the ids; row numbers the rows (%(default)s)",
    )
    add(
        "--question",
        default=default.question,
        metavar="COLUMN",
        help="column of the problems' texts (%(default)s)",
    )
    add(
        "--answer",
        metavar="COLUMN",
        help="column of the answers; default: answer, if there is one",
    )
    add("--subset", metavar="NAME", help="subset of a data set; default: the only one")
    add("--split", metavar="NAME", help="split of a data set; default: test, else train")


def chosen_problems(options: argparse.Namespace) -> ProblemSet:
    """Return the problems that the options name.

    Raises:
        SolverError: if there is nothing of that name, or not clear which part is meant.
    """
    return open_problems(
        options.problems,
        Columns(options.id, options.question, options.answer),
        subset=options.subset,
        split=options.split,
        first=options.first,
    )


def warn_of_truths(outside: Sequence[str], config: SolverConfig) -> None:
    """Say which known answers no attempt can give, because they are outside the range.

    Args:
        outside: ids of the problems.
        config: settings of the solver, with the range.
    """
    if outside:
        print(
            f"Answers are from {config.low} to {config.high}, so "
            f"{counted(len(outside), 'problem')} with another known answer will count as wrong: "
            f"{named(outside)}.",
            file=sys.stderr,
        )


def named(ids: Sequence[str], most: int = 5) -> str:
    """Return the first ids, and how many others there are."""
    others = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + others
