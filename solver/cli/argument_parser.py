"""The argument parser that all commands share: one sentence for wrong usage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from .exit_codes import ExitCode

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Print the message as one sentence and exit with `ExitCode.WRONG_INPUT`."""
        text = f"{self.prog}: {as_sentence(message)} See {self.prog} --help.\n"
        self.exit(ExitCode.WRONG_INPUT, text)


def as_sentence(text: str) -> str:
    """Return `text` with a full stop at its end, unless it already ends a sentence.

    The first letter is left alone: it may begin the name of a file or an option.
    """
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
