"""Runs a cell in this process, with the text that a real kernel would give.

This is for writing training traces: it is fast and needs no kernel. Nothing is isolated, and only
the printed text is limited, so only trusted code may be run here. Jupyter's magics, ``!`` commands
and top-level ``await`` are not supported.

Module state: a counter gives each cell a name of its own. While a cell runs, ``sys.stdout``,
``sys.stderr``, their originals, ``sys.stdin``, ``sys.displayhook``, ``builtins.input``, the warning
filters and ``threading.excepthook`` are replaced, as all of these belong to the process; only one
thread at a time may therefore run a cell.
"""

from __future__ import annotations

import ast
import builtins
import io
import itertools
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from .cell_text import (
    NO_INPUT,
    TEXT_LIMIT,
    OutputBudget,
    block,
    cell_name,
    format_error,
    format_warning,
    remember_source,
    render,
)
from .deep_source import deep_compilation
from .preamble import PREAMBLE
from .print_stream import PrintStream

_numbers = itertools.count(1)


def new_namespace() -> dict[str, Any]:
    """Return the namespace of a fresh kernel."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(PREAMBLE, namespace)
    namespace["exit"] = namespace["quit"] = leave
    return namespace


def leave(code: object = None) -> None:
    """``exit()`` and ``quit()`` of a cell."""
    raise SystemExit(code)


def no_input(prompt: object = "") -> str:
    """Refuse ``input()``, as nobody could answer."""
    raise EOFError(NO_INPUT)


@contextmanager
def _captured(pieces: list[str], budget: OutputBudget) -> Iterator[None]:
    """Collect in `pieces` what a cell prints, with its warnings and the errors of its threads."""
    stream: Any = PrintStream(budget, pieces.append)
    saved = sys.stdout, sys.stderr, sys.stdin, builtins.input, threading.excepthook
    saved_originals = sys.__stdout__, sys.__stderr__

    def thread_error(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            text = format_error(args.exc_value, "", args.exc_traceback)
            stream.write(f"Exception in a thread:\n{text}\n")

    def show_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
    ) -> None:
        stream.write(format_warning(message, category, filename, lineno))

    with warnings.catch_warnings():
        # The filters of a fresh interpreter, whatever the caller has set.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        warnings.showwarning = show_warning  # type: ignore[assignment]
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream  # type: ignore[misc]
        sys.stdin = io.StringIO()
        builtins.input = no_input
        threading.excepthook = thread_error
        try:
            yield
        finally:
            sys.stdout, sys.stderr, sys.stdin, builtins.input, threading.excepthook = saved
            sys.__stdout__, sys.__stderr__ = saved_originals  # type: ignore[misc]


def _dedent(code: str) -> str:
    """Remove the first line's indentation from every line that has it, as Jupyter does."""
    lines = code.split("\n")
    first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line.removeprefix(indent) for line in lines) if indent else code


def run_cell(code: str, namespace: dict[str, Any], limit: int = TEXT_LIMIT) -> str:
    """Run a cell and return the text that a model would read.

    Args:
        code: the cell.
        namespace: what `new_namespace` returned; it keeps the variables between cells.
        limit: characters of the text; the mark for what is left out comes on top of them.

    Raises:
        KeyboardInterrupt: the cell was interrupted, for example from the caller's terminal. All
            other exceptions of the cell become text.
    """
    name = cell_name(next(_numbers))
    code = _dedent(code)
    remember_source(name, code)
    pieces: list[str] = []
    budget = OutputBudget()
    namespace.pop("__warningregistry__", None)
    with _captured(pieces, budget):
        try:
            _run(code, name, namespace, pieces, budget)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            pieces.append(block(format_error(error, name)))
    return render("".join(pieces), limit)


def _run(
    code: str, name: str, namespace: dict[str, Any], pieces: list[str], budget: OutputBudget
) -> None:
    """Run a cell statement by statement like Jupyter, so that a compile error may come late."""

    def echo(value: object) -> None:
        if value is not None:
            pieces.append(block(budget.charge_displayed(repr(value))))
            namespace["_"] = value
            if budget.exhausted:
                raise budget.error()

    with deep_compilation():
        body = ast.parse(code, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    for node in body:
        exec(_compiled(ast.Module([node], []), name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        shown = sys.displayhook
        sys.displayhook = echo
        try:
            exec(_compiled(ast.Interactive([last]), name, "single"), namespace)
        finally:
            sys.displayhook = shown


def _compiled(tree: ast.Module | ast.Interactive, name: str, mode: str) -> CodeType:
    with deep_compilation():
        code: CodeType = compile(tree, name, mode)
    return code
