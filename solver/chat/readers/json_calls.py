"""Tool calls written as JSON, or nearly so.

Grammar:

    calls    := value (("," | ";")? value)*
    value    := object | "[" object ("," object)* "]" | a string that holds a value
    object   := "{" member ("," member)* "}"       closing brackets may be missing at the end
    member   := "name" ":" the tool's name | "arguments" ":" (arguments | a string of them)
    arguments:= "{" "code" ":" string ... "}" | the code itself

Strings may be quoted by ", ', ` or their triples, may hold line breaks, unknown escapes and quotes
that are not escaped: such a string ends at the first quote behind which only closing brackets and
simple members follow, up to where the call must end. Python's literals (single quotes, `True`,
commas before a bracket) and keys without quotes are read too. A string that nothing closes ends
with the call. Names of keys are those in `NAME_KEYS` and `ARGUMENT_KEYS`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..tool_call import Call, CallText, MalformedCall, is_tool_name, named_call
from .python_code import horizon, is_python

NAME_KEYS = ("name", "tool_name", "function_name", "tool", "function", "action", "recipient_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "tool_input", "action_input")
NOT_JSON = 'the call is not JSON with the keys "name" and "arguments"'

OBJECT_START = (
    r"(?:(?<=\n)|\A)[ \t]*\[?\s*\{\s*[\"'](?:"
    + "|".join((*NAME_KEYS, *ARGUMENT_KEYS, "type", "id", "tool_call_id", "tool_calls"))
    + r")[\"']\s*:|\{\s*[\"'](?:"
    + "|".join(NAME_KEYS)
    + r")[\"']\s*:\s*[\"'](?i:python)[\"']"
)
"""Pattern of an object that may be a call: at a line's start, or if it names the tool first."""

_GAP = re.compile(r"[\s,;]*")
_NAME = re.compile(
    rf"(?<![\w.])[\"']?(?:{'|'.join(NAME_KEYS)})[\"']?\s*:\s*[\"'](?P<name>[^\"'\n]{{1,80}})[\"']"
)
_CODE_KEY = re.compile(r"(?<![\w.])[\"']?code[\"']?\s*:\s*[rf]?(?P<quote>\"\"\"|'''|[\"'`])")
_SIMPLE = r"(?:\"[^\"\\\n]*\"|'[^'\\\n]*'|-?[\d.]+|true|false|null|True|False|None|\{\s*\}|\[\s*\])"
_TAIL = re.compile(rf"(?:\s*[}}\]]|\s*,\s*(?:[\"']?[\w-]+[\"']?\s*:\s*(?:{_SIMPLE}|\{{))?)*\s*")
_UNREADABLE = re.compile(
    rf"\[?\s*\{{\s*[\"'](?:{'|'.join(NAME_KEYS)})[\"']\s*:\s*[\"']([^\"'\n]{{1,80}})[\"']"
    rf"\s*,\s*[\"'](?:{'|'.join(ARGUMENT_KEYS)})[\"']\s*:"
)
_MARKS_AHEAD = 100  # marks that may stand in strings of the code
_TRIES = 16  # possible ends in front of which the code may turn out to be no Python
_KEY_DISTANCE = 2000  # characters of an object in which its code must begin
_DECODER = json.JSONDecoder(strict=False)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\"'\\/"}


def read_json_calls(
    text: str, start: int, end_mark: str, name: str | None = None
) -> CallText | None:
    """Read the calls that begin at `start`, or return None if no JSON begins there.

    Args:
        text: the turn.
        start: index of the first call, or of blanks in front of it.
        end_mark: pattern of what may follow the last call; the end of the text always may.
        name: the tool's name if the text has named it before; the objects are arguments then.
    """
    ending = re.compile(rf"\s*(?:\Z|{end_mark})")
    at = _skip(text, start)
    if not text.startswith(("{", "[", '"', "'"), at):
        return None
    calls: list[Call | MalformedCall] = []
    closed = True
    while text.startswith(("{", "[", '"', "'"), at):
        read = _strict_calls(text, at, ending, name)
        if read is None or not (ending.match(text, read.end) or _runs(read)):
            # What looks like the end of the object may stand in its code.
            lenient = _lenient_call(text, at, ending, name)
            read = lenient if read is None or (lenient and _runs(lenient)) else read
        if read is None:
            break
        calls += read.calls
        at = read.end
        closed = read.closed
        if ending.match(text, at) or not text.startswith(("{", "["), _skip(text, at)):
            break
        at = _skip(text, at)
    return CallText(at, tuple(calls), closed) if calls else None


def read_object_call(text: str, start: int) -> CallText | None:
    """Read an object in prose or in a fence; None unless it is meant as a call of a tool."""
    at = _skip(text, start)
    read = read_json_calls(text, at, r"`{3,}|(?<=\n)(?=[^\s}\]])")
    if read is not None and not read.closed:  # a fence may stand in the open string
        read = read_json_calls(text, at, r"(?!)")
    if read is not None and MalformedCall(NOT_JSON) not in read.calls:
        return read
    named = _UNREADABLE.match(text, at)
    if named is None:
        return None
    end = re.compile(r"\n[ \t]*\n|`{3,}|\Z").search(text, at)
    assert end is not None
    call = MalformedCall(NOT_JSON) if is_tool_name(named[1]) else named_call(named[1], None)
    return CallText(end.start(), (call,))


def _runs(read: CallText) -> bool:
    """Return True if all that was read is Python."""
    return all(isinstance(call, Call) and is_python(call.code) for call in read.calls)


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    assert gap is not None
    return gap.end()


def _strict_calls(text: str, at: int, ending: re.Pattern[str], name: str | None) -> CallText | None:
    """Read JSON; None if it is none, or is no call and does not end where it should."""
    read = _strict_value(text, at)
    if read is None:
        return None
    value, end = read
    if name is not None:
        calls = [named_call(name, value if isinstance(value, dict) else None)]
    else:
        calls = _calls_of(value)
    surplus = re.compile(r"[\s}\]]*").match(text, end)
    assert surplus is not None
    if not ending.match(text, surplus.end()) and not all(isinstance(c, Call) for c in calls):
        return None
    return CallText(end if ending.match(text, end) else surplus.end(), tuple(calls))


def _strict_value(text: str, at: int) -> tuple[Any, int] | None:
    """Return the JSON value or the Python literal at `at` and its end, or None."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _calls_of(value: Any, depth: int = 0) -> list[Call | MalformedCall]:
    """Return the calls in a value that has been read."""
    if depth > 3:
        return [MalformedCall(NOT_JSON)]
    if isinstance(value, str):
        inner = _strict_value(value, _skip(value, 0))
        return [MalformedCall(NOT_JSON)] if inner is None else _calls_of(inner[0], depth + 1)
    if isinstance(value, list) and value:
        calls = [call for one in value for call in _calls_of(one, depth + 1)]
        return calls if calls.count(MalformedCall(NOT_JSON)) < len(calls) else calls[:1]
    if not isinstance(value, dict):
        return [MalformedCall(NOT_JSON)]
    if isinstance(value.get("tool_calls"), list):
        return _calls_of(value["tool_calls"], depth + 1)
    if isinstance(value.get("function"), dict):
        return _calls_of(value["function"], depth + 1)
    name = next((value[key] for key in NAME_KEYS if key in value), None)
    arguments = next((value[key] for key in ARGUMENT_KEYS if key in value), None)
    if arguments is None and isinstance(value.get("code"), str):
        arguments = {"code": value["code"]}
    if not isinstance(name, str) or arguments is None:
        return [MalformedCall(NOT_JSON)]
    if isinstance(arguments, str):
        inner = _strict_value(arguments, _skip(arguments, 0))
        arguments = inner[0] if inner and isinstance(inner[0], dict) else {"code": arguments}
    return [named_call(name, arguments)]


def _lenient_call(text: str, at: int, ending: re.Pattern[str], tool: str | None) -> CallText | None:
    """Read what is no JSON: by the tool's name, and by where its code begins and ends."""
    code = _CODE_KEY.search(text, at, at + _KEY_DISTANCE)
    mark = re.compile(ending.pattern.removeprefix(r"\s*"))
    if code is None or any(match[0] for match in mark.finditer(text, at, code.start())):
        return None
    first: CallText | None = None
    quote, position = code["quote"], code.end()
    limit, tries = horizon(text, position, mark, _MARKS_AHEAD), _TRIES
    while tries and (stop := text.find(quote, position, limit)) >= 0:
        position = stop + 1
        rest = _TAIL.match(text, stop + len(quote))
        assert rest is not None
        if _escaped(text, stop) or not (
            ending.match(text, rest.end()) or text.startswith("{", rest.end())
        ):
            continue
        source = _decode(text[code.end() : stop])
        named = _NAME.search(text, at, code.start()) or _NAME.search(rest[0])
        name = tool or (named["name"] if named else None)
        if name is None:
            continue
        read = CallText(rest.end(), (named_call(name, {"code": source}),))
        if is_python(source):
            return read
        first, tries = first or read, tries - 1
    if first is None and tool is None:
        named = _NAME.search(text, at, code.start())
        tool = named["name"] if named else None
    if first is not None or tool is None:
        return first
    # The string is not closed: it ends with the call's envelope, or with the text.
    marks = mark.finditer(text, code.end())
    end = next((match.start() for match in marks if match[0]), len(text))
    source = _decode(text[code.end() : end])
    shorter = re.sub(r"[\s}\]]+\Z", "", source)
    if not is_python(source) and is_python(shorter):
        source = shorter
    return CallText(end, (named_call(tool, {"code": source}),), closed=False)


def _escaped(text: str, at: int) -> bool:
    before = at
    while before and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1


def _decode(raw: str) -> str:
    """Return the value of a string's text; unknown escapes stay as they are."""

    def value(escape: re.Match[str]) -> str:
        if escape[1][0] == "u" and len(escape[1]) == 5:
            return chr(int(escape[1][1:], 16))
        return _ESCAPED.get(escape[1], escape[0])

    return _ESCAPE.sub(value, raw)
