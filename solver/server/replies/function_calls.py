"""Calls of a request's tools in what the model writes, by the family's own form.

Grammars (blanks between parts are skipped):

    gemma4  := "<|tool_call>" "call:" name "{" [member ("," member)*] "}" "<tool_call|>"
    member  := key ":" value
    value   := '<|"|>' text '<|"|>' | "{" members "}" | "[" values "]" | a JSON value
    hermes  := "<tool_call>" (json | function) "</tool_call>"      and the tags of HERMES_TAGS
    function:= "<function=" name ">" ("<parameter=" key ">" text "</parameter>")* "</function>"
    function:= "<invoke name=" name ">" ("<parameter name=" key ">" text "</parameter>")*
               "</invoke>"
    glm     := "<tool_call>" name ("<arg_key>" key "</arg_key>" "<arg_value>" text "</arg_value>")*
               "</tool_call>"
    deepseek:= "<｜tool▁calls▁begin｜>" ("<｜tool▁call▁begin｜>" head "<｜tool▁call▁end｜>")+
    head    := "function" SEP name fenced json | name SEP json
    command := "<|START_ACTION|>" list of json "<|END_ACTION|>"
    mistral := "[TOOL_CALLS]" (list of json | name ["[CALL_ID]" id] "[ARGS]" json)
    llama3  := "<|python_tag|>"? json       alone in the turn
    json    := {"name" or "tool_name": ..., "arguments" or "parameters": {...}}

Arguments that are written as text without quotes are what the tool's schema says: text if it says
so, else JSON if they can be read as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
_DECODER = json.JSONDecoder(strict=False)
_NAME = re.compile(r"\s*call:\s*([\w.:-]+)\s*\{")
_FUNCTION = re.compile(
    r"\s*<(?:function=|invoke name=)[\"']?([^>\n\"']+)[\"']?>(.*?)</(?:function|invoke)>", re.DOTALL
)
_PARAMETER = re.compile(
    r"<parameter(?:=| name=)[\"']?([^>\n\"']+)[\"']?>\n?(.*?)\n?</parameter>", re.DOTALL
)
_GLM_NAME = re.compile(r"\s*([\w.:-]+)\s*(?=<arg_key>|\Z)")
_GLM_ARGUMENT = re.compile(
    r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)
_SEP = "<｜tool▁sep｜>"
_DEEPSEEK = re.compile(
    rf"\s*(?:function\s*{_SEP}\s*)?([\w.:-]+)\s*(?:{_SEP})?\s*(?:`{{3,}}(?:json)?\s*)?(?=\{{)"
)
_MISTRAL = re.compile(r"\s*([\w.:-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\]\s*)?(?=\{)")
HERMES_TAGS = (
    ("<tool_call>", "</tool_call>"),
    ("<seed:tool_call>", "</seed:tool_call>"),
    ("<minimax:tool_call>", "</minimax:tool_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<TOOLCALL>", "</TOOLCALL>"),
)
"""Tags around calls of Qwen and Hermes, Seed, MiniMax, Phi, and Nemotron."""

_SCALAR = re.compile(r"[^,}\]]+")


@dataclass(frozen=True)
class FunctionCall:
    """A call of a tool; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class ToolTypes:
    """Says which arguments are text, by the schemas of a request's tools.

    Args:
        tools: the tools, as the protocol states them.
    """

    def __init__(self, tools: Iterable[dict[str, Any]] = ()) -> None:
        self._texts: set[tuple[str, str]] = set()
        for tool in tools:
            function = tool.get("function")
            if not isinstance(function, dict):
                continue
            schema = function.get("parameters")
            fields = schema.get("properties") if isinstance(schema, dict) else None
            for key, field in fields.items() if isinstance(fields, dict) else ():
                if isinstance(field, dict) and field.get("type") == "string":
                    self._texts.add((str(function.get("name")), key))

    def only_text(self, name: str) -> str:
        """Return the tool's only argument that is text; "input" if there is no such one."""
        keys = [key for tool, key in self._texts if tool == name]
        return keys[0] if len(keys) == 1 else "input"

    def value(self, name: str, key: str, text: str) -> Any:
        """Return an argument that is written as text without quotes."""
        return text if (name, key) in self._texts else _loose(text)


@dataclass(frozen=True)
class CallForm:
    """How a family writes calls.

    Attributes:
        marks: texts of which one begins the first call.
        read: returns the calls in the text from the first mark on; raises `ValueError` if it
            cannot be read.
        alone: True if a turn that begins with a brace is a call, too.
        tokens: texts of further control tokens in calls.
    """

    marks: tuple[str, ...]
    read: Callable[[str, ToolTypes], list[FunctionCall]]
    alone: bool = False
    tokens: tuple[str, ...] = ()


def _object(value: Any) -> FunctionCall:
    name = value.get("name", value.get("tool_name")) if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError("no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are no object")
    return _call(name, arguments)


def _json_value(text: str, at: int) -> tuple[Any, int]:
    while at < len(text) and text[at].isspace():
        at += 1
    return _DECODER.raw_decode(text, at)


def _call(name: str, arguments: dict[str, Any]) -> FunctionCall:
    return FunctionCall(name, json.dumps(arguments, ensure_ascii=False))


def _read_hermes(text: str, types: ToolTypes) -> list[FunctionCall]:
    opening, closing = next(tags for tags in HERMES_TAGS if text.startswith(tags[0]))
    calls = []
    for part in text.split(opening)[1:]:
        body, at = part.partition(closing)[0], 0
        while function := _FUNCTION.match(body, at):
            name, at = function[1].strip(), function.end()
            parameters = _PARAMETER.findall(function[2])
            calls.append(
                _call(name, {key: types.value(name, key, value) for key, value in parameters})
            )
        if not at:
            value = _json_value(body, 0)[0]
            calls += [_object(one) for one in (value if isinstance(value, list) else [value])]
    return calls


def _read_glm(text: str, types: ToolTypes) -> list[FunctionCall]:
    calls = []
    for part in text.split("<tool_call>")[1:]:
        body = part.partition("</tool_call>")[0]
        head = _GLM_NAME.match(body)
        if head is None:
            raise ValueError("no name")
        arguments = _GLM_ARGUMENT.findall(body)
        calls.append(
            _call(head[1], {key: types.value(head[1], key, value) for key, value in arguments})
        )
    return calls


def _read_deepseek(text: str, types: ToolTypes) -> list[FunctionCall]:
    calls = []
    for part in text.split("<｜tool▁call▁begin｜>")[1:]:
        head = _DEEPSEEK.match(part)
        if head is None:
            raise ValueError("no name")
        calls.append(_object({"name": head[1], "arguments": _json_value(part, head.end())[0]}))
    return calls


def _read_command(text: str, types: ToolTypes) -> list[FunctionCall]:
    values = _json_value(text.removeprefix("<|START_ACTION|>"), 0)[0]
    return [_object(value) for value in (values if isinstance(values, list) else [values])]


def _loose(text: str) -> Any:
    """Return a parameter's value: JSON if it is any, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_mistral(text: str, types: ToolTypes) -> list[FunctionCall]:
    calls = []
    for part in text.split("[TOOL_CALLS]")[1:]:
        if head := _MISTRAL.match(part):
            calls.append(_object({"name": head[1], "arguments": _json_value(part, head.end())[0]}))
            continue
        values = _json_value(part, 0)[0]
        calls += [_object(value) for value in (values if isinstance(values, list) else [values])]
    return calls


def _read_llama3(text: str, types: ToolTypes) -> list[FunctionCall]:
    body, calls = text.removeprefix("<|python_tag|>").strip(), []
    at = 0
    while at < len(body):
        value, at = _json_value(body, at)
        calls.append(_object(value))
        while at < len(body) and (body[at].isspace() or body[at] == ";"):
            at += 1
    return calls


def _read_gemma4(text: str, types: ToolTypes) -> list[FunctionCall]:
    calls = []
    for part in text.split("<|tool_call>")[1:]:
        at = 0
        while head := _NAME.match(part, at):
            arguments, at = _members(part, head.end())
            calls.append(_call(head[1], arguments))
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
    "gemma4": CallForm(("<|tool_call>",), _read_gemma4, tokens=("<tool_call|>", QUOTE)),
    "hermes": CallForm(
        tuple(opening for opening, _ in HERMES_TAGS),
        _read_hermes,
        tokens=tuple(closing for _, closing in HERMES_TAGS),
    ),
    "glm": CallForm(
        ("<tool_call>",),
        _read_glm,
        tokens=("</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "deepseek": CallForm(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        _read_deepseek,
        tokens=(_SEP, "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    "command": CallForm(("<|START_ACTION|>",), _read_command, tokens=("<|END_ACTION|>",)),
    "mistral": CallForm(("[TOOL_CALLS]",), _read_mistral, tokens=("[CALL_ID]", "[ARGS]")),
    "llama3": CallForm(("<|python_tag|>",), _read_llama3, alone=True),
}
"""Forms of calls by the family of the chat format; Harmony's are messages (`harmony_reply.py`)."""
