"""Read the problem for `eightfold solve` from an argument, a file or standard input."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..solver_config import SolverError


def read_problem(argument: str | None, file: str | None) -> str:
    """Return the problem's text without surrounding white space.

    Args:
        argument: the text itself; "-" reads standard input, and so does None if standard input
            is not a terminal and there is no file.
        file: path of a file with the text.

    Raises:
        SolverError: there is no problem, there are two, or it is empty or not UTF-8 text.
    """
    stdin = sys.stdin  # None if the caller has closed it
    if file is not None and argument is not None:
        raise SolverError("Give the problem's text or --file, not both.")
    if file is not None:
        text = _read_file(file)
    elif stdin and (argument == "-" or (argument is None and not stdin.isatty())):
        text = _decode(stdin.buffer.read(), "Standard input")
    elif argument is None or argument == "-":
        raise SolverError("Give the problem's text, - for standard input, or --file FILE.")
    else:
        text = _decode(os.fsencode(argument), "The problem")
    if not text.strip():
        raise SolverError("The problem is empty; give its text.")
    return text.strip()


def _read_file(path: str) -> str:
    file = Path(path)
    if not file.exists() or file.is_dir():  # a pipe is welcome
        raise SolverError(f"There is no file {path}.")
    try:
        return _decode(file.read_bytes(), path)
    except OSError as error:
        raise SolverError(f"{path} cannot be read: {error.strerror}.") from error


def _decode(data: bytes, source: str) -> str:
    """Decode UTF-8, without a byte order mark; `source` names the data in the error."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SolverError(f"{source} is not UTF-8 text.") from error
