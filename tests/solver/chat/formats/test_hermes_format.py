"""Tool calls, results and final texts of Qwen and Hermes checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.call_checks import assert_calls
from helpers.chat_tokenizers import qwen

from eightfold.solver.chat import load_protocol, parse_calls


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ('<tool_call>\n{"name": "python", "arguments": {"code": "1\\n2"}}\n</tool_call>', ["1\n2"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}}</tool_call>' * 2, ["1"] * 2),
        ('<tool_call>{"name": "python", "arguments": "{\\"code\\": \\"1\\"}"}</tool_call>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1\n2"}}</tool_call>', ["1\n2"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</parameter>\n</function>\n"
         "</tool_call>", ["1"]),
        ('<think>maybe <tool_call>{"name"</think>done', []),
        ("<tool_call>{oops}</tool_call>", [None]),
        ("<tool_call>[1, 2]</tool_call>", [None]),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", [None]),
        ("<tool_call>" + "9" * 5000 + "</tool_call>", [None]),
        ('<tool_call>{"name": "search", "arguments": {"code": "1"}}</tool_call>', [None]),
        ('<tool_call>{"name": "python", "arguments": {"code": 1}}</tool_call>', [None]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}}', [None]),
    ],
)  # fmt: skip
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(parse_calls(qwen(), text), calls)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("<think>\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("<think>\\boxed{1}", ""),
    ],
)
def test_final_text_has_no_thoughts(text: str, final: str) -> None:
    assert load_protocol(qwen()).final_text(text) == final


def test_tool_results_equal_the_template() -> None:
    protocol = load_protocol(qwen())
    text = protocol.decode(protocol.tool_response(["1", "2"]))
    assert text == (
        "\n<|im_start|>user\n<tool_response>\n1\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert load_protocol(qwen(opens=True)).prompt_opener == "<think>\n"
