"""The path in the errors of files: Python names it if a file cannot be opened, but not later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def path_in_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the path to an `OSError` that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
