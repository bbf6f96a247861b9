"""Exit codes of the command `eightfold`."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes that all commands share."""

    OK = 0
    """The command did what was asked; for `solve` and `kaggle rehearse`, with an answer."""

    NO_ANSWER = 1
    """No attempt produced an answer; for `budget simulate`, a run exceeded its limit."""

    WRONG_INPUT = 2
    """An argument, a file or a model cannot be used."""

    FAILED = 3
    """The machine could not do it: no kernels, no memory, an unreadable file."""

    INTERRUPTED = 130
    """Ctrl-C, as shells report it: 128 plus the number of SIGINT."""
