"""Build the parser of the command `eightfold` and run the chosen command.

Wrong usage is reported before anything heavy, such as torch, is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .argument_parser import ArgumentParser, as_sentence
from .exit_codes import ExitCode
from .user_errors import exit_code_for


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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, one of `ExitCode`.

    Args:
        argv: the arguments after the program's name; None takes those of this process.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, who does not want to read it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    # Otherwise transformers also logs what is wrong with a checkpoint; we report it ourselves.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has reported wrong usage, or printed the help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _interrupted()
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone, and the interpreter must not complain at exit
        return ExitCode.FAILED
    except Exception as error:
        code = exit_code_for(error)
        if code is None:
            raise
        reason = str(error) or type(error).__name__
        print(f"eightfold {options.command}: {as_sentence(reason)}", file=sys.stderr)
        return code


def _interrupted() -> int:
    print("Interrupted.", file=sys.stderr)
    return ExitCode.INTERRUPTED
