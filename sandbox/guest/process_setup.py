"""Changes that a kernel's process makes so that ordinary programs run in it as in plain Python.

Module state: `install` replaces functions of `sys`, `os` and `subprocess`, for the whole process,
once, in the template; `search_working_folders` adds to Python's own search path and hooks.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery as machinery
import logging
import os
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STACK_BYTES = 120 << 20  # Linux keeps at least 128 MiB free below a program's stack
# Cells begin with this limit instead of Python's 1,000, because recurrences with a memory are often
# deeper. It is safe in threads too, which have the usual stack of 8 MiB, and through C code.
RECURSION = 5_000
# Python 3.11 counts calls through C code as any other, and these take up to 700 bytes of the stack.
# Later versions have a limit of their own for them.
MAX_RECURSION = 150_000 if sys.version_info < (3, 12) else None


def install() -> None:
    """Make recursion safe, keep large stacks from started programs, and silence idle warnings."""
    sys.setrecursionlimit(RECURSION)
    if MAX_RECURSION is not None:
        sys.setrecursionlimit = _limited(sys.setrecursionlimit, MAX_RECURSION)
    fork_exec: Any = importlib.import_module("_posixsubprocess")
    fork_exec.fork_exec = _with_usual_stack(fork_exec.fork_exec)
    subprocess: Any = importlib.import_module("subprocess")
    if hasattr(subprocess, "_fork_exec"):
        subprocess._fork_exec = fork_exec.fork_exec
    system: Any = os
    system.system = _with_usual_stack(os.system)
    # Programs that fork work here, and there is no window in which a plot could appear.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork")
    warnings.filterwarnings("ignore", message=".* is non-interactive, and thus cannot be shown")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def _limited(function: Callable[[int], None], most: int) -> Callable[[int], None]:
    @functools.wraps(function)
    def setrecursionlimit(limit: int, /) -> None:
        function(min(limit, most) if isinstance(limit, int) else limit)

    return setrecursionlimit


_usual_stack: tuple[int, int] | None = None


def enlarge_stack() -> None:
    """Let this process's main thread use `STACK_BYTES` of stack, as deep recursion needs."""
    global _usual_stack
    _usual_stack = soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


@contextmanager
def _usual_stack_limit() -> Iterator[None]:
    """Restore the usual limit: threads of a program get stacks of the limit that it starts with."""
    large = resource.getrlimit(resource.RLIMIT_STACK)
    if _usual_stack is None or large[0] != STACK_BYTES:
        yield
        return
    resource.setrlimit(resource.RLIMIT_STACK, (_usual_stack[0], large[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, large)


def _with_usual_stack(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with _usual_stack_limit():
            return function(*args, **options)

    return wrapped


class _FreshFinder(machinery.FileFinder):
    """Finds modules in a folder to which cells write, without remembering what was there."""

    def find_spec(self, fullname: str, target: Any = None) -> Any:
        """Return the module's spec as the folder is now."""
        self.invalidate_caches()
        return super().find_spec(fullname, target)


def search_working_folders(*folders: Path) -> None:
    """Import modules from the current folder, and see at once what cells write below `folders`.

    Python's own finder compares times of change, which are too coarse for a file that was written a
    moment ago.
    """
    inside = tuple(f"{folder}{os.sep}" for folder in folders)
    loaders = (
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )

    def find_fresh(path: str) -> _FreshFinder:
        if not f"{os.path.abspath(path)}{os.sep}".startswith(inside):
            raise ImportError("not a folder of cells")
        return _FreshFinder(path, *loaders)

    sys.path_hooks.insert(0, find_fresh)
    sys.path.insert(0, "")
    sys.dont_write_bytecode = True  # a changed module has the size and second of the old one


def write_interpreter_links(folder: Path) -> None:
    """Create programs ``python`` and ``python3`` that start this interpreter.

    They are scripts, because an interpreter finds its packages by the path it is started with.
    """
    folder.mkdir(mode=0o755)
    for name in ("python", "python3", f"python3.{sys.version_info[1]}"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        path.chmod(0o755)
