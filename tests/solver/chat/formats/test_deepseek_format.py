"""Tool calls and results of DeepSeek checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.call_writers import deepseek as call
from helpers.solver_cases.call_writers import fenced
from helpers.solver_cases.chat_tokenizers import deepseek

from eightfold.solver.chat import load_protocol

TYPED, NAMED = "function<｜tool▁sep｜>python\n", "python<｜tool▁sep｜>"
ONE, TWO = '{"code": "1"}', '{"code": "2"}'
END, ALL_END = "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        (call(TYPED, fenced("json", ONE)) + "<｜end▁of▁sentence｜>", ["1"]),
        (call(NAMED, ONE) + "<｜end▁of▁sentence｜>", ["1"]),
        (call(NAMED, ONE + END + "<｜tool▁call▁begin｜>" + NAMED + TWO), ["1", "2"]),
        (call(TYPED, fenced("json", ONE)) + "\n" + call(NAMED, TWO), ["1", "2"]),
        (call(TYPED, fenced("python", "print(1)")), ["print(1)\n"]),
        (call(NAMED, ONE).replace(ALL_END, "").replace(END, "") + "<｜end▁of▁sentence｜>", ["1"]),
        (call(NAMED, ONE).replace(ALL_END, ""), ["1"]),
        (call(NAMED, ONE).replace(ALL_END, "").replace(END, ""), [None]),
        (call(NAMED, f'{{"code": "f(\'{END}\')"}}'), [f"f('{END}')"]),
        (call(TYPED, fenced("json", '{"code": "print("a")"}')), ['print("a")']),
        (call(NAMED.replace("python", "search"), ONE), [None]),
        (call(NAMED, "{1}"), [None]),
        ("<think>maybe " + call(NAMED, ONE) + "</think>\\boxed{1}", []),
        ("```python\nprint(1)\n```<｜end▁of▁sentence｜>", ["print(1)\n"]),
    ],
)
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(deepseek()).parse_calls(text), calls)


def test_results_follow_the_turn_as_the_template_frames_them() -> None:
    """The template wants the arguments as text, and no content beside a call."""
    protocol = load_protocol(deepseek())
    assert protocol.decode(protocol.tool_response(["1", "2"])) == (
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1<｜tool▁output▁end｜>"
        "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜><｜tool▁outputs▁end｜><｜Assistant｜><think>"
    )
    assert protocol.prompt_opener == "<think>"


def test_a_template_that_ignores_the_tool_leaves_it_to_the_system_message() -> None:
    protocol = load_protocol(deepseek(declares=False))
    assert not protocol.native_tool
    assert protocol.prompts.fenced in protocol.decode(protocol.render_prompt("1"))
    assert protocol.decode(protocol.tool_response(["1"])) == (
        "<｜User｜>Output:\n```\n1\n```<｜Assistant｜><think>"
    )
    assert_calls(protocol.parse_calls(call(NAMED, ONE)), ["1"])
