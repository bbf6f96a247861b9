"""Thoughts, content and calls of answers that come in pieces of any size (2 s)."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.server.replies.function_calls import CALL_FORMS, ToolTypes
from eightfold.solver.server.replies.harmony_reply import MARK, TOKENS, HarmonyReply, marked_text
from eightfold.solver.server.replies.tagged_reply import TaggedReply

TAGGED = [
    ("hermes", "", "<think>\nIs a < b? </thin\n</think>\n\nYes.", "Is a < b? </thin\n", "Yes."),
    ("hermes", "<think>\n", "a\n</think>\n\nb <think> c", "a\n", "b <think> c"),
    ("hermes", "", "  b </think> c", "", "  b </think> c"),
    ("hermes", "<think>", "no end", "no end", ""),
    ("gemma4", "", "<|channel>thought\nhm<channel|>42", "hm", "42"),
    ("gemma4", "<|channel>thought\n", "hm<channel|>42", "hm", "42"),
    ("gemma4", "", "<|channel>final\n42<channel|>", "", "42"),
    ("gemma4", "", "one <|channel>thought\nhm<channel|>two", "hm", "one two"),
    ("mistral", "", "[THINK]a[b][/THINK]c", "a[b]", "c"),
    ("command", "", "<|START_THINKING|>p<|END_THINKING|>r", "p", "r"),
    ("deepseek", "<think>\n", "p</think>r", "p", "r"),
    ("glm", "<think>", "</think>\nr", "", "r"),
    ("llama3", "", "a <b> [c] {d", "", "a <b> [c] {d"),
]
MESSAGES = (
    "<|channel|>analysis<|message|>hm < 3<|end|><|start|>assistant<|channel|>commentary<|message|>"
    "I look.<|end|><|start|>assistant<|channel|>analysis<|message|>so<|end|>"
)
CALL = (
    "<|start|>assistant<|channel|>commentary to=functions.get <|constrain|>json<|message|>"
    '{"x": 1}<|call|>'
)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=9)


def marked(text: str) -> str:
    """Mark all control tokens of Harmony in a text."""
    return re.sub("|".join(map(re.escape, TOKENS)), rf"{MARK}\g<0>", text)


def feed(reply: TaggedReply | HarmonyReply, text: str, sizes: list[int]) -> None:
    """Add a text in pieces, and check that the sum of the new parts is all of them."""
    at, content, reasoning = 0, "", ""
    while at < len(text):
        size = sizes[at % len(sizes)]
        new = reply.add(text[at : at + size])
        content, reasoning, at = content + new.content, reasoning + new.reasoning, at + size
    new = reply.add("", last=True)
    assert (reasoning + new.reasoning, content + new.content) == (
        reply.all.reasoning,
        reply.all.content,
    )


@pytest.mark.parametrize(("family", "opener", "text", "reasoning", "content"), TAGGED)
@given(sizes=SIZES)
def test_thoughts_are_kept_apart(
    family: str, opener: str, text: str, reasoning: str, content: str, sizes: list[int]
) -> None:
    for form in (None, CALL_FORMS[family]):
        reply = TaggedReply(form, opener=opener)
        feed(reply, text, sizes)
        assert (reply.all.reasoning, reply.all.content) == (reasoning, content)
        assert not reply.all.calls


@pytest.mark.parametrize("family", ["hermes", "mistral", "llama3"])
def test_a_call_may_follow_a_thought(family: str) -> None:
    call = {
        "hermes": '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "mistral": "[TOOL_CALLS]f[ARGS]{}",
        "llama3": '{"name": "f", "parameters": {}}',
    }[family]
    parts = TaggedReply(CALL_FORMS[family]).add(f"<think>a {call}</think>\n{call}", last=True)
    assert parts.reasoning == f"a {call}"
    assert [one.name for one in parts.calls] == ["f"]
    assert not parts.content


@given(sizes=SIZES)
def test_messages_of_harmony_are_thoughts_content_and_calls(sizes: list[int]) -> None:
    reply = HarmonyReply(ToolTypes())
    feed(reply, marked(MESSAGES + CALL), sizes)
    assert reply.all.reasoning == "hm < 3\n\nso"
    assert reply.all.content == "I look."
    (call,) = reply.all.calls
    assert (call.name, json.loads(call.arguments)) == ("get", {"x": 1})
    plain = HarmonyReply(None)
    final = "<|start|>assistant<|channel|>final<|message|>"
    feed(plain, marked(f"{MESSAGES}{final}42<|return|>"), sizes)
    assert plain.all.content == "I look.\n\n42"


def test_code_that_harmony_sends_to_a_tool_is_its_only_text() -> None:
    fields = {"code": {"type": "string"}, "seconds": {"type": "number"}}
    types = ToolTypes([{"function": {"name": "python", "parameters": {"properties": fields}}}])
    reply = HarmonyReply(types)
    reply.add(marked("<|channel|>analysis to=python code<|message|>print(1)<|call|>"), last=True)
    assert json.loads(reply.all.calls[0].arguments) == {"code": "print(1)"}


def test_harmony_that_is_out_of_order_loses_no_text() -> None:
    for text, content, calls in [
        ("<|channel|>final<|message|>cut", "cut", 0),
        ("plain text", "plain text", 0),
        ("<|channel|>analysis to=python code<|message|>print(1)<|call|>", "", 1),
        ("<|channel|>commentary to=functions.f<|message|>", "", 1),
        ("<|channel|>fin", "", 0),
        ("<|channel|>final<|message|>a<|channel|>b", "a<|channel|>b", 0),
        ("", "", 0),
    ]:
        reply = HarmonyReply(ToolTypes())
        reply.add(marked(text), last=True)
        assert (reply.all.content, len(reply.all.calls)) == (content, calls), text


@given(sizes=SIZES)
def test_texts_of_control_tokens_in_an_answer_of_harmony_are_text(sizes: list[int]) -> None:
    code = "print('<|end|><|call|>')"
    head, end = marked("<|channel|>analysis to=python code<|message|>"), marked("<|call|>")
    reply = HarmonyReply(ToolTypes([{"function": {"name": "python"}}]))
    feed(reply, head + code + end, sizes)
    assert [call.name for call in reply.all.calls] == ["python"]
    assert code in reply.all.calls[0].arguments
    final = HarmonyReply(None)
    feed(
        final,
        marked("<|channel|>final<|message|>") + "Write <|end|>." + marked("<|return|>"),
        sizes,
    )
    assert final.all.content == "Write <|end|>."


def test_control_tokens_are_marked_by_their_ids() -> None:
    texts = {1: "<|end|>", 2: "<|end|>", 3: f"a{MARK}b"}
    text = marked_text([3, 2, 1, 3], {1: "<|end|>"}, lambda ids: "".join(texts[i] for i in ids))
    assert text == f"ab<|end|>{MARK}<|end|>ab"
