"""Calls of a request's tools in what the model writes, by the family's own form.

Grammars (blanks between parts are skipped):

    gemma4  := "<|tool_call>" "call:" name "{" [member ("," member)*] "}" "<tool_call|>"
    member  := key ":" value
    value   := '<|"|>' text '<|"|>' | "{" members "}" | "[" values "]" | a JSON value
    hermes  := "<tool_call>" (json | function) "</tool_call>"
    function:= "<function=" name ">" ("<parameter=" key ">" text "</parameter>")* "</function>"
    mistral := "[TOOL_CALLS]" (list of json | name "[ARGS]" json)
    llama3  := "<|python_tag|>"? json       alone in the turn
    json    := {"name": ..., "arguments" or "parameters": {...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
_DECODER = json.JSONDecoder(strict=False)
_NAME = re.compile(r"\s*call:\s*([\w.:-]+)\s*\{")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_SCALAR = re.compile(r"[^,}\]]+")


@dataclass(frozen=True)
class FunctionCall:
    """A call of a tool; `arguments` is a JSON object as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class CallForm:
    """How a family writes calls.

    Attributes:
        mark: text that begins the first call, which a stream must hold back.
        read: returns the calls in the text from the first mark on; raises `ValueError` if it
            cannot be read.
        alone: True if a turn that begins with a brace is a call, too.
    """

    mark: str
    read: Callable[[str], list[FunctionCall]]
    alone: bool = False


def read_calls(form: CallForm, text: str) -> tuple[str, list[FunctionCall]]:
    """Return the text in front of the calls, and the calls; all of it is text if none is read."""
    at = text.find(form.mark)
    if at < 0 and form.alone and text.lstrip().startswith("{"):
        at = 0
    if at < 0:
        return text, []
    try:
        calls = form.read(text[at:])
    except ValueError:
        return text, []
    return (text[:at].rstrip(), calls) if calls else (text, [])


class CallHold:
    """Passes on a stream's text up to where a call may begin."""

    def __init__(self, form: CallForm) -> None:
        self._form = form
        self._text = ""
        self._given = 0

    def add(self, piece: str) -> str:
        """Add text and return what is certainly in front of all calls."""
        self._text += piece
        at = self._text.find(self._form.mark)
        if self._form.alone and self._text.lstrip()[:1] in ("", "{"):
            at = 0
        if at < 0:
            at = len(self._text)
            for count in range(1, len(self._form.mark)):
                if self._text.endswith(self._form.mark[:count]):
                    at = len(self._text) - count
        new = self._text[self._given : at]
        self._given = max(self._given, at)
        return new

    def rest(self, content: str) -> str:
        """Return what of the final content has not been passed on."""
        return content[self._given :]


def _object(value: Any) -> FunctionCall:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError("no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are no object")
    return FunctionCall(name, json.dumps(arguments, ensure_ascii=False))


def _json_value(text: str, at: int) -> tuple[Any, int]:
    while at < len(text) and text[at].isspace():
        at += 1
    return _DECODER.raw_decode(text, at)


def _read_hermes(text: str) -> list[FunctionCall]:
    calls = []
    for part in text.split("<tool_call>")[1:]:
        body = part.partition("</tool_call>")[0]
        if function := _FUNCTION.match(body):
            arguments = {name: _loose(value) for name, value in _PARAMETER.findall(function[2])}
            calls.append(
                FunctionCall(function[1].strip(), json.dumps(arguments, ensure_ascii=False))
            )
        else:
            calls.append(_object(_json_value(body, 0)[0]))
    return calls


def _loose(text: str) -> Any:
    """Return a parameter's value: JSON if it is any, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_mistral(text: str) -> list[FunctionCall]:
    calls = []
    for part in text.split("[TOOL_CALLS]")[1:]:
        name, found, arguments = part.partition("[ARGS]")
        if found:
            value = {"name": name.strip(), "arguments": _json_value(arguments, 0)[0]}
            calls.append(_object(value))
            continue
        values = _json_value(part, 0)[0]
        calls += [_object(value) for value in (values if isinstance(values, list) else [values])]
    return calls


def _read_llama3(text: str) -> list[FunctionCall]:
    body, calls = text.removeprefix("<|python_tag|>").strip(), []
    at = 0
    while at < len(body):
        value, at = _json_value(body, at)
        calls.append(_object(value))
        while at < len(body) and (body[at].isspace() or body[at] == ";"):
            at += 1
    return calls


def _read_gemma4(text: str) -> list[FunctionCall]:
    calls = []
    for part in text.split("<|tool_call>")[1:]:
        at = 0
        while head := _NAME.match(part, at):
            arguments, at = _members(part, head.end())
            calls.append(FunctionCall(head[1], json.dumps(arguments, ensure_ascii=False)))
        if not at:
            raise ValueError("no call behind the mark")
    return calls


def _members(text: str, at: int) -> tuple[dict[str, Any], int]:
    """Read the members of an object whose opening brace stands in front of `at`."""
    members: dict[str, Any] = {}
    while (at := _skip(text, at)) < len(text) and text[at] != "}":
        key, found, _ = text[at:].partition(":")
        if not found:
            raise ValueError("a member without a value")
        at += len(key) + 1
        members[key.replace(QUOTE, "").strip().strip("\"'")], at = _value(text, at)
    if at >= len(text):
        raise ValueError("the object is not closed")
    return members, at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    at = _skip(text, at)
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise ValueError("a text is not closed")
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text.startswith("{", at):
        return _members(text, at + 1)
    if text.startswith("[", at):
        values: list[Any] = []
        at += 1
        while (at := _skip(text, at)) < len(text) and text[at] != "]":
            value, at = _value(text, at)
            values.append(value)
        return values, at + 1
    if text.startswith('"', at):
        return _DECODER.raw_decode(text, at)
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise ValueError("a value is missing")
    return _loose(scalar[0].strip()), scalar.end()


def _skip(text: str, at: int) -> int:
    while at < len(text) and (text[at].isspace() or text[at] == ","):
        at += 1
    return at


CALL_FORMS = {
    "gemma4": CallForm("<|tool_call>", _read_gemma4),
    "hermes": CallForm("<tool_call>", _read_hermes),
    "mistral": CallForm("[TOOL_CALLS]", _read_mistral),
    "llama3": CallForm("<|python_tag|>", _read_llama3, alone=True),
}
"""Forms of calls by the family of the chat format; the others' calls are not parsed back."""
