"""Turns as conversations: thoughts, calls in their places, and nothing lost (1 s)."""

from __future__ import annotations

import json

import pytest
from helpers.solver_cases.hostile_run import call, turn

from eightfold.solver.report.conversation import pieces_of, split_thoughts, visible_text

CODE = 'x = {"a": 1}\nprint(x)'


def shown(*turns: object) -> list[tuple[str, str]]:
    return [(str(piece.kind), piece.text) for piece in pieces_of(turns)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "markup",
    [
        f'<|tool_call>call:python{{code:<|"|>{CODE}<|"|>}}<tool_call|><|tool_response>',
        f'<tool_call>\n{{"name": "python", "arguments": {{"code": {json.dumps(CODE)}}}}}\n'
        "</tool_call><|im_end|>",
        f"```python\n{CODE}\n```",
        f"<function=python>\n<parameter=code>\n{CODE}\n</parameter>\n</function>\n</tool_call>",
        f'[TOOL_CALLS]python{{"code": {json.dumps(CODE)}}}</s>',
        f"<|python_tag|>{CODE}<|eom_id|>",
    ],
)
def test_a_call_stands_in_place_of_its_markup(markup: str) -> None:
    pieces = shown(turn(f"<think>Plan.</think>Before.\n{markup}", call(CODE, "1")))
    assert pieces == [("thought", "Plan."), ("text", "Before."), ("call", CODE)]


def test_text_behind_a_call_is_kept() -> None:
    pieces = shown(turn(f"```python\n{CODE}\n```\n\nIt prints 1.", call(CODE, "1")))
    assert pieces == [("call", CODE), ("text", "It prints 1.")]


def test_calls_stand_in_their_order_even_if_they_are_equal() -> None:
    text = "A\n```python\nf()\n```\nB\n```python\nf()\n```"
    pieces = shown(turn(text, call("f()", "1"), call("f()", "2")))
    assert [kind for kind, _ in pieces] == ["text", "call", "text", "call"]
    outputs = [one.call["output"] for one in pieces_of([turn(text, call("f()", "1"))]) if one.call]
    assert outputs == ["1"]


def test_calls_that_are_not_found_in_the_text_follow_it() -> None:
    pieces = shown(turn("Say.", call("lost()", "1"), call(None, "unreadable", "malformed")))
    assert pieces == [("text", "Say."), ("call", "lost()"), ("call", "")]


def test_a_draft_in_a_thought_does_not_take_the_call() -> None:
    pieces = shown(turn("<think>f() maybe</think>```python\nf()\n```", call("f()", "1")))
    assert pieces == [("thought", "f() maybe"), ("call", "f()")]
    assert shown(turn("<think>f()", call("f()", "1"))) == [("call", "f()")]


def test_messages_of_harmony() -> None:
    thought = "<|channel|>analysis<|message|>Plan.<|end|><|start|>assistant"
    markup = f"<|channel|>analysis to=python code<|message|>{CODE}<|call|>"
    final = "<|channel|>final<|message|>It is \\boxed{1}.<|return|>"
    pieces = shown(turn(thought + markup, call(CODE, "1")), turn(final))
    assert pieces == [("thought", "Plan."), ("call", CODE), ("text", "It is \\boxed{1}.")]
    assert shown(
        turn(f"{thought[:-9]}<|channel|>final<|message|>a<|end|>Stray text.<|return|>")
    ) == [
        ("thought", "Plan."),
        ("text", "a"),
        ("text", "Stray text."),
    ]
    noted = {**turn(final), "notes": ["message 1: no start token"]}
    assert shown(noted)[-1] == ("note", "Out of order: message 1: no start token.")


def test_thoughts_of_the_families() -> None:
    assert shown(turn("<|channel>thought\nHm.\n<channel|>So 1.<turn|>")) == [
        ("thought", "Hm."),
        ("text", "So 1."),
    ]
    assert split_thoughts("Hm.</think>So.")[0] == ("thought", "Hm.")
    assert shown(turn("Hm.</think>So.", opener="<think>")) == [("thought", "Hm."), ("text", "So.")]
    assert shown(turn("<think>never closed")) == [("thought", "never closed")]
    assert visible_text(turn("<think>a</think>b<think>c</think>d")) == "b\nd"


def test_a_request_for_a_box_is_a_note() -> None:
    pieces = shown(turn("It is 7.", appended=[1, 2]), turn("\\boxed{7}"))
    assert [kind for kind, _ in pieces] == ["text", "note", "text"]


def test_old_records_without_texts_are_empty() -> None:
    assert shown({"entropies": [0.2]}) == []


def test_long_blank_texts_take_no_quadratic_time() -> None:
    assert shown(turn(" " * 1_000_000 + "x" + "\n" * 1_000_000)) == [("text", "x")]
