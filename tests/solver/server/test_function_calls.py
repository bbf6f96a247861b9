"""Calls of a request's tools, in the form of each family (2 s)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.server.replies.function_calls import CALL_FORMS, ToolTypes
from eightfold.solver.server.replies.tagged_reply import TaggedReply

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab {}[]\"',:\n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text("abc_", min_size=1, max_size=5), VALUES, max_size=3)
TYPES = ToolTypes(
    [{"function": {"name": "f", "parameters": {"properties": {"s": {"type": "string"}}}}}]
)


def gemma_value(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{gemma_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(gemma_value, value)) + "]"
    return json.dumps(value)


def glm_call(name: str, arguments: dict[str, Any]) -> str:
    pairs = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{json.dumps(value)}</arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{pairs}</tool_call>"


def deepseek_call(name: str, arguments: dict[str, Any]) -> str:
    call = f"{name}<｜tool▁sep｜>{json.dumps(arguments)}"
    return (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{call}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )


def written(family: str, name: str, arguments: dict[str, Any]) -> str:
    """Return a call as models of the family write it."""
    body = json.dumps({"name": name, "arguments": arguments})
    command = json.dumps([{"tool_call_id": "0", "tool_name": name, "parameters": arguments}])
    return {
        "gemma4": f"<|tool_call>call:{name}{gemma_value(arguments)}<tool_call|>",
        "hermes": f"<tool_call>\n{body}\n</tool_call>",
        "glm": glm_call(name, arguments),
        "deepseek": deepseek_call(name, arguments),
        "command": f"<|START_ACTION|>{command}<|END_ACTION|>",
        "mistral": f"[TOOL_CALLS][{body}]",
        "llama3": f"<|python_tag|>{body.replace('arguments', 'parameters')}",
    }[family]


def calls_in(family: str, text: str, types: ToolTypes | None = None) -> list[tuple[str, Any]]:
    """Return names and arguments of the calls in a whole answer."""
    parts = TaggedReply(CALL_FORMS[family], types).add(text, last=True)
    return [(call.name, json.loads(call.arguments)) for call in parts.calls]


@pytest.mark.parametrize("family", CALL_FORMS)
@given(arguments=ARGUMENTS, pieces=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_calls_come_back_unchanged_and_are_held_back_in_a_stream(
    family: str, arguments: dict[str, Any], pieces: list[int]
) -> None:
    text = "Let me look. " + written(family, "weather.now", arguments)
    reply, at = TaggedReply(CALL_FORMS[family]), 0
    while at < len(text):
        size = pieces[at % len(pieces)]
        assert not reply.add(text[at : at + size]).calls
        at += size
    reply.add("", last=True)
    assert reply.all.content == "Let me look. "
    assert [(call.name, json.loads(call.arguments)) for call in reply.all.calls] == [
        ("weather.now", arguments)
    ]


@pytest.mark.parametrize("family", CALL_FORMS)
def test_two_calls_are_two(family: str) -> None:
    text = "\n".join(written(family, name, {"x": 1}) for name in ("a", "b"))
    if family == "mistral":
        text = '[TOOL_CALLS]a[ARGS]{"x": 1}[TOOL_CALLS]b[CALL_ID]1a2[ARGS]{"x": 1}'
    if family == "llama3":
        text = text.replace("\n<|python_tag|>", "; ")
    if family == "command":
        text = text.replace("]<|END_ACTION|>\n<|START_ACTION|>[", ", ")
    assert calls_in(family, text) == [("a", {"x": 1}), ("b", {"x": 1})]


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (
            "hermes",
            "<tool_call><function=f>\n<parameter=n>\n3\n</parameter>\n<parameter=s>\n4\n"
            "</parameter>\n</function></tool_call>",
        ),
        (
            "hermes",
            '<minimax:tool_call>\n<invoke name="f">\n<parameter name="n">3</parameter>\n'
            '<parameter name="s">4</parameter>\n</invoke>\n</minimax:tool_call>',
        ),
        ("hermes", '<TOOLCALL>[{"name": "f", "arguments": {"n": 3, "s": "4"}}]</TOOLCALL>'),
        (
            "glm",
            "<tool_call>f<arg_key>n</arg_key><arg_value>3</arg_value>"
            "<arg_key>s</arg_key><arg_value>4</arg_value></tool_call>",
        ),
        (
            "deepseek",
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"n": 3, '
            '"s": "4"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ),
        ("llama3", '{"name": "f", "parameters": {"n": 3, "s": "4"}}'),
    ],
)
def test_other_forms_of_a_family_are_read_with_the_types_of_the_tool(
    family: str, text: str
) -> None:
    assert calls_in(family, text, TYPES) == [("f", {"n": 3, "s": "4"})]


@pytest.mark.parametrize("family", CALL_FORMS)
def test_what_is_no_call_stays_text(family: str) -> None:
    form = CALL_FORMS[family]
    mark = form.marks[0]
    for text in ("plain", f"{mark} {{not a call", mark, f"a {mark}", "[" * 100_000, ""):
        parts = TaggedReply(form).add(text, last=True)
        assert (parts.content, parts.calls) == (text, [])
    deep = mark + "[" * 100_000
    assert TaggedReply(form).add(deep, last=True).content == deep
