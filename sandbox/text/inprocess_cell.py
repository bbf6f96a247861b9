"""A cell run in this very process, with the text the real kernel would give.

For writing training traces: quick, and without a kernel. Nothing is contained or limited but the
printed text, so only trusted code may be run here. Jupyter's magics, ``!`` commands and top-level
``await`` are not understood.
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
from typing import Any

from .cell_text import (
    NO_INPUT,
    TEXT_LIMIT,
    Budget,
    PrintStream,
    block,
    cell_name,
    format_error,
    format_warning,
    remember_source,
    render,
)
from .preamble import PREAMBLE

_numbers = itertools.count(1)


def new_namespace() -> dict[str, Any]:
    """The namespace of a fresh kernel."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(PREAMBLE, namespace)
    namespace["exit"] = namespace["quit"] = leave
    return namespace


def leave(code: object = None) -> None:
    """``exit()`` and ``quit()`` of a cell."""
    raise SystemExit(code)


def no_input(prompt: object = "") -> str:
    """``input()`` of a cell: there is nobody to answer."""
    raise EOFError(NO_INPUT)


@contextmanager
def _captured(pieces: list[str], budget: Budget) -> Iterator[None]:
    """What the cell prints, warns and loses in threads goes to `pieces`; ``input()`` refuses."""
    stream: Any = PrintStream(budget, pieces.append)
    saved = sys.stdout, sys.stderr, sys.stdin, builtins.input, threading.excepthook

    def thread_error(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            text = format_error(args.exc_value, "", args.exc_traceback)
            stream.write(f"Exception in a thread:\n{text}\n")

    def show_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
    ) -> None:
        stream.write(format_warning(message, category, filename, lineno))

    with warnings.catch_warnings():
        # A fresh interpreter's filters, whatever the caller has set.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        warnings.showwarning = show_warning  # type: ignore[assignment]
        sys.stdout = sys.stderr = stream
        sys.stdin = io.StringIO()
        builtins.input = no_input
        threading.excepthook = thread_error
        try:
            yield
        finally:
            sys.stdout, sys.stderr, sys.stdin, builtins.input, threading.excepthook = saved


def _dedent(code: str) -> str:
    """Take the first line's indent off every line that has it, as Jupyter does."""
    lines = code.split("\n")
    first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line.removeprefix(indent) for line in lines) if indent else code


def run_cell(code: str, namespace: dict[str, Any], limit: int = TEXT_LIMIT) -> str:
    """Run `code` in `namespace` and return the text a model would read, at most about `limit` long.

    `namespace` comes from `new_namespace` and keeps the cell's variables. A ``KeyboardInterrupt``
    (of the caller's terminal) is passed on; everything else the cell raises becomes text.
    """
    name = cell_name(next(_numbers))
    code = _dedent(code)
    remember_source(name, code)
    pieces: list[str] = []
    budget = Budget()
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
    code: str, name: str, namespace: dict[str, Any], pieces: list[str], budget: Budget
) -> None:
    """Statement by statement, like Jupyter: what precedes a late compile error has been run."""

    def echo(value: object) -> None:
        if value is not None:
            pieces.append(block(budget.charge(repr(value))))
            namespace["_"] = value
            if budget.exhausted:
                raise budget.error()

    body = ast.parse(code, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    for node in body:
        exec(compile(ast.Module([node], []), name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        shown = sys.displayhook
        sys.displayhook = echo
        try:
            exec(compile(ast.Interactive([last]), name, "single"), namespace)
        finally:
            sys.displayhook = shown
