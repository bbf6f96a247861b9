"""The command line `eightfold`. Wrong usage is found before anything heavy is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

OK, NO_ANSWER, WRONG_INPUT, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
COMMANDS = (*("solve", "evaluate", "replay", "budget", "sandbox", "preload", "bundle", "kaggle"),)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"{self.prog}: {sentence(message)} See {self.prog} --help.\n")


def sentence(text: str) -> str:
    """The text with a full stop; its start stays, which may be a file's or an option's name."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."


def version() -> str:
    """The version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("eightfold")
    except PackageNotFoundError:
        return "0 (not installed)"


def make_parser() -> Parser:
    """The parser with all commands."""
    parser = Parser(
        prog="eightfold", description="Solves competition problems with integer answers offline."
    )
    parser.add_argument("--version", action="version", version=f"eightfold {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"eightfold.solver.cli.commands.{name}_command").add_parser(commands)
    return parser


def user_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is one sentence for the user."""
    from eightfold.engine import ModelError

    from ..chat.chat_protocol import ProtocolError
    from ..chat.prompt_texts import PromptError
    from ..solver_config import SolverError

    return (SolverError, ProtocolError, PromptError, ModelError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    0: done (for `solve`: with an answer); 1: no attempt answered; 2: wrong input; 3: the machine
    could not do it (no kernels, no memory); 130: interrupted.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: what is said there is lost
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    # What transformers says of a damaged checkpoint is raised as well, and told in one sentence.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return int(stop.code or 0)
    except KeyboardInterrupt:  # the commands are imported there
        return _interrupted()
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; nothing more can be said
        return FAILED
    except Exception as error:
        if isinstance(error, user_errors()):
            print(f"eightfold {options.command}: {sentence(str(error))}", file=sys.stderr)
            return WRONG_INPUT
        if isinstance(error, (OSError, MemoryError)) or _is_loss(error):
            reason = str(error) or type(error).__name__
            print(f"eightfold {options.command}: {sentence(reason)}", file=sys.stderr)
            return FAILED
        raise


def _interrupted() -> int:
    print("Interrupted.", file=sys.stderr)
    return INTERRUPTED


def _is_loss(error: Exception) -> bool:
    from eightfold.sandbox.sandbox_errors import SandboxError

    from ..attempts.engine_loop import EngineLostError

    return isinstance(error, (SandboxError, EngineLostError))
