"""Build the parser of the command `eightfold` and run the chosen command.

Wrong usage is reported before anything heavy, such as torch, is imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections.abc import Sequence
from functools import partial

from .argument_parser import ArgumentParser
from .exit_codes import ExitCode
from .log_output import set_log_level
from .message_text import as_sentence, name_options, shorten_message
from .settings_file import DEFAULT_FILE, apply_settings
from .user_errors import exit_code_for, message_of

logger = logging.getLogger(__name__)


def installed_version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("eightfold")
    except PackageNotFoundError:
        return "0 (not installed)"


def make_parser() -> ArgumentParser:
    """Return the parser with all commands."""
    from .commands import COMMANDS  # importing them can take a while, and may be interrupted

    parser = ArgumentParser(
        prog="eightfold", description="Solve competition problems with integer answers, offline."
    )
    parser.add_argument("--version", action="version", version=f"eightfold {installed_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    for leaf in parser.leaves():
        _add_common_options(leaf)
        leaf.prepare = partial(apply_settings, parser, leaf)
        leaf.set_defaults(parser=leaf)
    return parser


def _add_common_options(parser: ArgumentParser) -> None:
    """Add the options that every command has."""
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help=f"TOML file with values of options (default: {DEFAULT_FILE} in the current folder, if "
        "there is one)",
    )
    parser.add_argument(
        "--verbose",
        action="count",
        default=0,
        help="log what is done to standard error; twice: in more detail",
    )


def option_names(parser: ArgumentParser) -> dict[str, str]:
    """Return the names of a command's options by those of the settings that they stand for."""
    return {action.dest: f"--{name}" for name, action in parser.options().items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, one of `ExitCode`.

    Args:
        argv: the arguments after the program's name; None takes those of this process.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, who does not want to read it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        parser = make_parser()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
            from .completion import complete

            complete(parser)
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has reported wrong usage, or printed the help
        return int(stop.code or 0)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    set_log_level(options.verbose)
    # Otherwise transformers also logs what is wrong with a checkpoint; we report it ourselves.
    chosen = "info" if options.verbose > 1 else "critical"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", chosen)
    _log_start(options)
    return _run(options)


def _log_start(options: argparse.Namespace) -> None:
    """Log the versions and where the options come from; their values are details."""
    logger.info(
        "eightfold %s, Python %s on %s",
        installed_version(),
        platform.python_version(),
        sys.platform,
    )
    logger.info("settings file: %s", options.settings or "none")
    for name, value in vars(options).items():
        if name not in ("run", "parser", "api_key"):
            logger.debug("%s = %r", name, value)


def _run(options: argparse.Namespace) -> int:
    """Run the command that was chosen and report what ends it."""
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # a full disk is reported here, not when the interpreter exits
        return code
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone, and the interpreter must not complain at exit
        return ExitCode.FAILED
    except Exception as error:
        known = exit_code_for(error)
        if known is None:
            raise
        _discard_unwritable_output()
        reason = name_options(shorten_message(message_of(error)), option_names(options.parser))
        print(f"{options.parser.prog}: {as_sentence(reason)}", file=sys.stderr)
        return known


def _discard_unwritable_output() -> None:
    """Drop output that cannot be written, so that the interpreter does not complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    """Say that the command was interrupted, and what the command says about it, if anything.

    It may have said that with an earlier interrupt, which this one has replaced.
    """
    said = ""
    error: BaseException | None = interrupt
    while error is not None and not said:
        said = str(error) if isinstance(error, KeyboardInterrupt) else ""
        error = error.__context__
    print(said or "Interrupted.", file=sys.stderr)
    return ExitCode.INTERRUPTED
