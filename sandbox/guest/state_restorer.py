"""State that cells share with the kernel, restored between them."""

from __future__ import annotations

import builtins
import inspect
import sys
from typing import Any

from .cell_streams import CurrentCell


def _methods(instance: object) -> list[tuple[str, Any]]:
    """Return the methods of an object's class."""
    return inspect.getmembers(type(instance), inspect.isfunction)


class StateRestorer:
    """Restores builtins, streams and displays, which a cell may break and the next one needs.

    `restore` itself uses no builtins.

    Args:
        shell: the interactive shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._publisher, self._hook = shell.display_pub, shell.displayhook
        self._hidden = tuple(
            (vars(each), tuple(name for name, value in _methods(each) if name not in vars(each)))
            for each in (self._publisher, self._hook)
        )
        self._builtins = builtins.__dict__
        self._saved = tuple(builtins.__dict__.items())
        self._setdefault = builtins.__dict__.setdefault
        self._sys = sys

    def restore(self) -> None:
        """Add the builtins that are missing, and make the streams those of the cells."""
        setdefault = self._setdefault
        for name, value in self._saved:
            setdefault(name, value)
        stream = CurrentCell.stream
        if self._sys.stdout is not stream or self._sys.stderr is not stream:
            self._sys.stdout = self._sys.stderr = stream
        self._sys.__stdout__ = self._sys.__stderr__ = stream  # type: ignore[misc]
        shell = self._shell
        if shell.display_pub is not self._publisher:
            shell.display_pub = self._publisher
        if shell.displayhook is not self._hook:
            shell.displayhook = self._hook
        for values, names in self._hidden:
            for name in names:  # methods that a cell has put in front of the class's own
                if name in values:
                    del values[name]
