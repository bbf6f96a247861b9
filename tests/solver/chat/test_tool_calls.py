"""Tool calls and the final channel in the text of every checkpoint family (2 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.chat_tokenizers import gemma, llama, qwen

from eightfold.solver.chat.protocol_choice import Call, MalformedCall, load_protocol, parse_calls

GEMMA_CALL = '<|tool_call>call:python{code:<|"|>print(1)\n<|"|>}<tool_call|>'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ("<|channel>thought\nhm<channel|>" + GEMMA_CALL + "<|tool_response>", ["print(1)\n"]),
        (GEMMA_CALL * 2 + "<|tool_response>", ["print(1)\n"] * 2),
        ('<|tool_call>call:python{code:<|"|>a = {1: "}"}<|"|>}<tool_call|>', ['a = {1: "}"}']),
        ('<|tool_call>call:python{ code: <|"|>1<|"|> }<tool_call|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>}', [None]),
        ('<|tool_call>call:python{code:<|"|>1<|tool_call>call:python{code:<|"|>2<|"|>}<tool_call|>',
         [None, "2"]),
        ('<|tool_call>call:search{code:<|"|>1<|"|>}<tool_call|>', [None]),
        ('<|tool_call>call:python{source:<|"|>1<|"|>}<tool_call|>', [None]),
        ('<|tool_call>call:python{code:1}<tool_call|>', [None]),
        ('<|tool_call>call:python{code:<|"|>  <|"|>}<tool_call|>', [None]),
        ("<|tool_call>print(1)<tool_call|>", [None]),
    ],
)  # fmt: skip
def test_gemma_calls(text: str, calls: list[str | None]) -> None:
    _same(load_protocol(gemma()).parse_calls(text), calls)


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
def test_hermes_calls(text: str, calls: list[str | None]) -> None:
    _same(parse_calls(qwen(), text), calls)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ("Let us see:\n```python\nprint(1)\n```", ["print(1)\n"]),
        ("```py\n1\n```\nand\n```python\n2\n```\n", ["1\n", "2\n"]),
        ("```python\n1\n```\nso \\boxed{1}", []),
        ("```\nno language\n```", []),
        ("```python\nprint(", [None]),
    ],
)
def test_fenced_calls(text: str, calls: list[str | None]) -> None:
    _same(load_protocol(llama()).parse_calls(text), calls)


def _same(found: list[Call | MalformedCall], wanted: list[str | None]) -> None:
    assert [call.code if isinstance(call, Call) else None for call in found] == wanted
    for call in found:
        if isinstance(call, MalformedCall):
            assert call.reason
            assert not call.reason.endswith(".")


@pytest.mark.parametrize(
    ("build", "text", "final"),
    [
        (gemma, "<|channel>thought\n\\boxed{1}<channel|>\\boxed{2}<turn|>", "\\boxed{2}"),
        (gemma, "<|channel>thought\n\\boxed{1}", ""),
        (gemma, "a " + GEMMA_CALL + "<|tool_response>", "a "),
        (qwen, "<think>\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        (qwen, "\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        (qwen, "<think>\\boxed{1}", ""),
        (llama, "```python\n'\\boxed{1}'\n```\nthus \\boxed{2}", "\nthus \\boxed{2}"),
    ],
)
def test_final_channel(build: Any, text: str, final: str) -> None:
    assert load_protocol(build()).final_text(text) == final
