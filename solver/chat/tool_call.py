"""Tool calls as parsed from a model's text: readable or malformed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .readers.python_code import shows_code

TOOL_NAMES = ("python", "ipython", "python3", "code_interpreter", "python_interpreter")
"""Names by which models call the tool `python`, in lower case."""

OTHER_LANGUAGES = (
    "bash",
    "shell",
    "sh",
    "javascript",
    "js",
    "sql",
    "r",
    "ruby",
    "java",
    "c",
    "cpp",
)
"""Names of tools, in lower case, whose code is not Python even if it could be."""


@dataclass(frozen=True)
class Call:
    """One readable call of the tool `python`."""

    code: str


@dataclass(frozen=True)
class MalformedCall:
    """A call that cannot be read; `reason` is a short clause without a full stop.

    The model reads the reason, so its wording is part of the prompt.
    """

    reason: str


@dataclass(frozen=True)
class CallText:
    """The calls that were read behind a mark, and where they end.

    Attributes:
        end: index behind the last of them.
        calls: the calls, in order.
        closed: False if the text ends, or another call begins, before the call is closed.
    """

    end: int
    calls: tuple[Call | MalformedCall, ...]
    closed: bool = True


def is_tool_name(name: str) -> bool:
    """Return True if a model means the tool `python` by `name`, as in `functions.Python`."""
    return re.split(r"[.:/]", name.strip().lower())[-1] in TOOL_NAMES


def checked_call(code: str) -> Call | MalformedCall:
    """Return `code` as a call, or as a malformed one if it is blank."""
    return Call(code) if code.strip() else MalformedCall("the code is empty")


def _means_python(name: str, arguments: object) -> bool:
    if not isinstance(arguments, dict) or list(arguments) != ["code"]:
        return False
    code = arguments["code"]
    return (
        isinstance(code, str) and name.strip().lower() not in OTHER_LANGUAGES and shows_code(code)
    )


def named_call(name: str, arguments: object) -> Call | MalformedCall:
    """Return a call of the tool `name` with these arguments, or the reason why there is none.

    The code may be a list of its lines, or the only argument, whatever its name. A name that the
    model has invented does not matter if the only argument, `code`, can be nothing but Python.
    """
    if not is_tool_name(name) and not _means_python(name, arguments):
        return MalformedCall(f"there is no tool {name.strip()[:40]}, only python")
    code = None
    if isinstance(arguments, dict):
        code = next(iter(arguments.values())) if len(arguments) == 1 else arguments.get("code")
    if isinstance(code, list) and code and all(isinstance(line, str) for line in code):
        code = "\n".join(line.removesuffix("\n") for line in code)
    if not isinstance(code, str):
        return MalformedCall("python takes one string argument named code")
    return checked_call(code)
