"""Options that several commands share, and the settings they amount to."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attempts.voting import DEFAULT_RULE, RULES
from ..solver_config import SolverConfig, SolverError

if TYPE_CHECKING:
    from eightfold.engine import EngineConfig


def add_solver_options(parser: argparse.ArgumentParser) -> None:
    """Everything a solver can be told."""
    d = SolverConfig()
    add = parser.add_argument
    add("--model", metavar="DIR", help="Hugging Face model folder; default: the bundled model")
    add("--attempts", type=int, default=d.attempts, metavar="N", help="attempts (%(default)s)")
    add(
        "--early-stop",
        type=int,
        default=d.early_stop,
        metavar="K",
        help="equal answers that end a problem; 0: wait for all (%(default)s)",
    )
    add(
        "--turns",
        type=int,
        default=d.turns,
        metavar="N",
        help="rounds of tool calls per attempt (%(default)s)",
    )
    add(
        "--time",
        type=float,
        default=d.time,
        metavar="S",
        help="seconds a problem may take (%(default)g)",
    )
    add("--seed", type=int, default=d.seed, metavar="N", help="seed of the run (%(default)s)")
    sampling = "default: the checkpoint's generation_config.json, else "
    add("--temperature", type=float, metavar="T", help=sampling + "1")
    add("--top-p", type=float, metavar="P", help=sampling + "1")
    add("--top-k", type=int, metavar="K", help=sampling + "0 (all)")
    add("--min-p", type=float, metavar="P", help=sampling + "0")
    add("--rule", choices=sorted(RULES), default=DEFAULT_RULE, help="vote (%(default)s)")
    add("--tool-timeout", type=float, default=d.tool_timeout, metavar="S", help="(%(default)g)")
    add("--kernels", type=int, default=d.kernels, metavar="N", help="Python kernels (%(default)s)")
    add("--prompts", metavar="FILE", help="TOML file that replaces sentences of the prompt")
    add("--max-tokens", type=int, metavar="N", help="tokens an attempt may write in all")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add("--max-context", type=int, metavar="N", help="most tokens of one attempt, prompt included")


def solver_config(options: argparse.Namespace, **changes: Any) -> SolverConfig:
    """The settings that the options amount to.

    Raises:
        SolverError: a value is out of range.
    """
    names = (
        *("model", "attempts", "early_stop", "turns", "time", "seed", "temperature", "top_p"),
        *("top_k", "min_p", "rule", "tool_timeout", "kernels", "prompts", "max_tokens"),
    )
    values = {name: getattr(options, name) for name in names} | changes
    config = SolverConfig(**values)
    return replace(config, engine=_engine_config(options, config.running))


def _engine_config(options: argparse.Namespace, running: int) -> EngineConfig | None:
    if options.device is None and options.max_context is None:
        return None
    from eightfold.engine import EngineConfig

    device, context = options.device, options.max_context
    try:
        return EngineConfig(device=device, max_context=context, max_running=running)
    except ValueError as error:
        raise SolverError(str(error)) from error


def read_text_file(path: str) -> str:
    """A text file's content; a pipe will do.

    Raises:
        SolverError: it is missing, cannot be read, or is no UTF-8 text.
    """
    file = Path(path)
    if not file.exists() or file.is_dir():
        raise SolverError(f"There is no file {path}.")
    try:
        return decoded(file.read_bytes(), path)
    except OSError as error:
        raise SolverError(f"{path} cannot be read: {error.strerror}.") from error


def decoded(data: bytes, source: str) -> str:
    """The text in `data`, a byte order mark left out.

    Raises:
        SolverError: it is not UTF-8; `source` says where it comes from.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SolverError(f"{source} is not UTF-8 text.") from error
