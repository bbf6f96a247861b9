"""Calls of a request's tools, in the forms of four families (1 s)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.server.function_calls import CALL_FORMS, CallHold, read_calls

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab {}[]\"',:\n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text("abc_", min_size=1, max_size=5), VALUES, max_size=3)


def gemma_value(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{gemma_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(gemma_value, value)) + "]"
    return json.dumps(value)


def written(family: str, name: str, arguments: dict[str, Any]) -> str:
    """Return a call as models of the family write it."""
    body = json.dumps({"name": name, "arguments": arguments})
    return {
        "gemma4": f"<|tool_call>call:{name}{gemma_value(arguments)}<tool_call|>",
        "hermes": f"<tool_call>\n{body}\n</tool_call>",
        "mistral": f"[TOOL_CALLS][{body}]",
        "llama3": f"<|python_tag|>{body.replace('arguments', 'parameters')}",
    }[family]


@pytest.mark.parametrize("family", CALL_FORMS)
@given(arguments=ARGUMENTS, pieces=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_calls_come_back_unchanged_and_are_held_back_in_a_stream(
    family: str, arguments: dict[str, Any], pieces: list[int]
) -> None:
    form = CALL_FORMS[family]
    text = "Let me look. " + written(family, "weather.now", arguments)
    content, calls = read_calls(form, text)
    assert content == "Let me look."
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather.now", arguments)
    ]
    hold, shown, at = CallHold(form), "", 0
    while at < len(text):
        size = pieces[at % len(pieces)]
        shown += hold.add(text[at : at + size])
        at += size
    assert (shown + hold.rest(content)).strip() == content


def test_two_calls_are_two_and_parameters_may_be_tags() -> None:
    form = CALL_FORMS["hermes"]
    text = written("hermes", "a", {"x": 1}) + "\n" + written("hermes", "b", {})
    assert [call.name for call in read_calls(form, text)[1]] == ["a", "b"]
    tags = "<tool_call><function=f>\n<parameter=n>\n3\n</parameter>\n<parameter=s>\nx y\n"
    tags += "</parameter>\n</function></tool_call>"
    (call,) = read_calls(form, tags)[1]
    assert (call.name, json.loads(call.arguments)) == ("f", {"n": 3, "s": "x y"})


@pytest.mark.parametrize("family", CALL_FORMS)
def test_what_is_no_call_stays_text(family: str) -> None:
    form = CALL_FORMS[family]
    for text in ("plain", f"{form.mark} {{not a call", form.mark):
        assert read_calls(form, text) == (text, [])
    assert read_calls(form, "")[1] == []
