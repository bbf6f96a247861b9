"""The argument parser that all commands share: one sentence for wrong usage."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from .exit_codes import ExitCode
from .message_text import as_sentence, shorten_message

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, without the usage text.

    Attributes:
        words_hint: sentence added to the error if words are left over that are no options.
        prepare: called with the arguments before they are parsed; None does nothing.
    """

    words_hint = ""
    prepare: Callable[[Sequence[str]], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; those left over are this parser's error, not that of the parent."""
        if self.prepare is not None:
            self.prepare(args or ())
        parsed, left_over = super().parse_known_args(args, namespace)
        if left_over:
            text = as_sentence(f"unrecognized arguments: {' '.join(left_over)}")
            self.error(f"{text} {self._hint_for(left_over)}")
        return parsed, left_over

    def _hint_for(self, left_over: Sequence[str]) -> str:
        """Return a sentence about arguments that are not known, or ""."""
        for word in left_over:
            name = word.lstrip("-").split("=")[0]
            near = get_close_matches(name, self.options(), 1) if word.startswith("-") else []
            if near:
                return f"Did you mean --{near[0]}?"
        return self.words_hint if _are_words(left_over) else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check a command or a choice; a command that is not known gets a hint."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            near = get_close_matches(value, action.choices, 1)
            known = (
                f"did you mean {near[0]}?" if near else f"choose from {', '.join(action.choices)}."
            )
            if " " in value.strip() and "solve" in action.choices:
                known = "to solve a problem, write eightfold solve 'TEXT'."
            raise argparse.ArgumentError(None, f"there is no command {value!r}; {known}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Print the message as one sentence and exit with `ExitCode.WRONG_INPUT`."""
        text = as_sentence(shorten_message(message))
        self.exit(ExitCode.WRONG_INPUT, f"{self.prog}: {text} See {self.prog} --help.\n")

    def commands(self) -> dict[str, ArgumentParser]:
        """Return the parsers of the commands below this one by name; empty for a command."""
        parts = [one for one in self._actions if isinstance(one, argparse._SubParsersAction)]
        return {name: parser for one in parts for name, parser in one.choices.items()}

    def leaves(self) -> list[ArgumentParser]:
        """Return the parsers of all commands that can be run."""
        below = self.commands().values()
        return [leaf for parser in below for leaf in parser.leaves()] if below else [self]

    def options(self) -> dict[str, argparse.Action]:
        """Return the options by their long names, without the dashes."""
        return {
            text[2:]: action
            for action in self._actions
            for text in action.option_strings
            if text.startswith("--")
        }


def _are_words(arguments: Sequence[str]) -> bool:
    """Return True if the arguments could be text: not a lone option such as -q or --fast."""
    return any(not one.startswith("-") or not one.lstrip("-").isidentifier() for one in arguments)
