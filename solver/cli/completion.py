"""Completion of commands, options and values in the shell, by argcomplete.

eval "$(register-python-argcomplete eightfold)"    # in .bashrc or .zshrc
"""

from __future__ import annotations

from .argument_parser import ArgumentParser


def complete(parser: ArgumentParser) -> None:
    """Print the completions that the shell asks for and exit, as argcomplete does."""
    import argcomplete
    from argcomplete.completers import ChoicesCompleter, DirectoriesCompleter

    for leaf in parser.leaves():
        leaf.prepare = None  # a faulty settings file must not stop a completion
        for action in leaf._actions:
            if action.metavar in ("DIR", "MODEL", "RUN"):
                action.completer = DirectoriesCompleter()  # type: ignore[attr-defined]
            elif action.metavar not in ("FILE", None):  # numbers and texts, not names of files
                action.completer = ChoicesCompleter({})  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")
