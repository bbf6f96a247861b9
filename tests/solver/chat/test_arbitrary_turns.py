"""No text of a model breaks the readers, and what they say of it is consistent (5 s)."""

from __future__ import annotations

import time

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES
from helpers.solver_cases.code_strategies import MARKS, PIECES
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.tool_call import Call, MalformedCall

PROTOCOLS: dict[str, ChatProtocol] = {
    name: load_protocol(make()) for name, make in FAMILIES.items()
}
OPENINGS = [
    '<|tool_call>call:python{code:<|"|>', '<|"|>}<tool_call|>', '<tool_call>\n{"name": "python", ',
    '"arguments": {"code": "', '"}}\n</tool_call>', "<function=python>\n<parameter=code>\n",
    "\n</parameter>\n</function>", "<tool_call>python\n<arg_key>code</arg_key>\n<arg_value>",
    "[TOOL_CALLS]python[ARGS]{", '<tool_call>{"name": "python", "arguments": {"code": "print("',
    '\n{"name": "python", "arguments": {"code": "print(', "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>python<｜tool▁sep｜>",
    "\n```python\n", "\n```json\n", "\n```\n", "<|im_end|>", "print(1)", "\\boxed{2}",
]  # fmt: skip
TURNS = st.lists(st.sampled_from([*OPENINGS, *MARKS, *PIECES]), max_size=14).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(text=TURNS)
def test_readers_agree_on_any_text(family: str, text: str) -> None:
    protocol = PROTOCOLS[family]
    for call in protocol.parse_calls(text):
        if isinstance(call, MalformedCall):
            assert call.reason
            assert not call.reason.endswith(".")
        else:
            assert call.code.strip()
    final = protocol.final_text(text)
    assert len(final) <= len(text)
    end = protocol.code_end(text)
    if end is not None:
        assert text[:end].endswith(("```", "~~~", "`", "~"))
        assert isinstance(protocol.parse_calls(text[:end])[-1], Call)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "piece",
    [
        *OPENINGS,
        "[",
        "{",
        '{"a":',
        "<think>",
        "</think>",
        "\n> ",
        '"',
        "\\",
        "\n```python\nx = '''\n",
    ],
)
def test_a_model_that_repeats_itself_is_read_in_time(family: str, piece: str) -> None:
    """Attempts that loop write one thing thousands of times; no reader may be quadratic in it."""
    protocol = PROTOCOLS[family]
    started = time.monotonic()
    protocol.parse_calls(piece * 2000)
    protocol.code_end("<think>" + piece * 2000)
    assert time.monotonic() - started < 20  # a limit for hangs; it takes well under a second
