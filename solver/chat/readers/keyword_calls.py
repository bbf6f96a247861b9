"""Calls written as Python writes them.

Grammar:

    calls := "[" call ("," call)* "]" | call
    call  := NAME [".call"] "(" "code" "=" literal ")"
"""

from __future__ import annotations

import ast
import re

from ..tool_call import Call, CallText, MalformedCall, named_call

KEYWORD_CALL = r"\[?\s*(?i:i?python)(?:\.call)?\(\s*(?:code|query)\s*=\s*(?=[rf]?[\"'])"
"""Pattern of the first call up to its literal."""

_CALL = re.compile(
    r"\[?\s*(?P<name>\w+)(?:\.call)?\(\s*(?:code|query)\s*=\s*"
    r"(?P<code>r?(?:\"\"\"(?:\\.|.)*?\"\"\"|'''(?:\\.|.)*?'''|"
    r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'))\s*,?\s*\)\s*(?P<more>[,\]]?)",
    re.DOTALL,
)


def read_keyword_calls(text: str, start: int) -> CallText | None:
    """Read the calls that begin at `start`, or return None if there are none."""
    calls: list[Call | MalformedCall] = []
    at = start
    while match := _CALL.match(text, at):
        calls.append(named_call(match["name"], {"code": _value(match["code"])}))
        at = match.end()
        if match["more"] != ",":
            break
    return CallText(at, tuple(calls)) if calls else None


def _value(literal: str) -> str:
    """Return the value of a string literal; one-line literals may hold line breaks."""
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        value = ast.literal_eval(literal.replace("\n", "\\n"))
    return str(value)
