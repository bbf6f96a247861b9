"""Fenced blocks of Python as tool calls (1 s)."""

from __future__ import annotations

import pytest
from helpers.call_checks import assert_calls
from helpers.chat_tokenizers import llama

from eightfold.solver.chat import load_protocol


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
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(llama()).parse_calls(text), calls)


def test_final_text_has_no_code() -> None:
    text = "```python\n'\\boxed{1}'\n```\nthus \\boxed{2}"
    assert load_protocol(llama()).final_text(text) == "\nthus \\boxed{2}"
