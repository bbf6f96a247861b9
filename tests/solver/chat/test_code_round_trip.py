"""Code that a model writes into a call comes back unchanged, whatever stands in it (20 s)."""

from __future__ import annotations

import ast

import pytest
from helpers.solver_cases.call_writers import WRITERS, fenced
from helpers.solver_cases.chat_tokenizers import FAMILIES
from helpers.solver_cases.code_strategies import PROGRAMS
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.tool_call import Call

PROTOCOLS: dict[str, ChatProtocol] = {
    name: load_protocol(make()) for name, make in FAMILIES.items()
}
THOUGHTS = st.sampled_from(["", "<think>Let me see.</think>\n", "I run it.\n"])
EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("form", WRITERS)
@EXAMPLES
@given(code=PROGRAMS, thought=THOUGHTS)
def test_code_in_a_call_is_unchanged(form: str, code: str, thought: str) -> None:
    family, write = WRITERS[form]
    protocol = PROTOCOLS[family]
    ast.parse(code)
    text = thought + write(code)
    assert protocol.parse_calls(text) == [Call(code)]
    assert "boxed" not in protocol.final_text(text)
    assert protocol.code_end(text) is None


@pytest.mark.parametrize("form", WRITERS)
@EXAMPLES
@given(codes=st.lists(PROGRAMS, min_size=2, max_size=2))
def test_two_calls_are_two_calls(form: str, codes: list[str]) -> None:
    family, write = WRITERS[form]
    calls = PROTOCOLS[family].parse_calls("\n".join(map(write, codes)))
    assert all(isinstance(call, Call) for call in calls)
    # Code without a closing mark keeps the line break in front of the next call.
    assert [call.code.rstrip("\n") for call in calls if isinstance(call, Call)] == codes


@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
@pytest.mark.parametrize("family", FAMILIES)
@EXAMPLES
@given(code=PROGRAMS, thought=THOUGHTS)
def test_code_in_a_fence_is_unchanged(fence: str, family: str, code: str, thought: str) -> None:
    protocol = PROTOCOLS[family]
    block = f"{thought}Code:\n{fence}python\n{code}\n{fence}"
    assert protocol.parse_calls(block) == [Call(code + "\n")]
    for rest in ("", "\n", "\n```output\n7\n```\nSo \\boxed{7}."):
        assert protocol.code_end(block + rest) == len(block)
    assert protocol.parse_calls(block + "\n```output\n7\n```\n\\boxed{7}") == [Call(code + "\n")]
    assert protocol.parse_calls(f"{block}\nSo \\boxed{{7}}.") == []


@EXAMPLES
@given(code=PROGRAMS)
def test_model_is_stopped_only_where_the_code_ends(code: str) -> None:
    """While the text grows, no earlier fence stops the model, and later text changes nothing."""
    protocol = PROTOCOLS["hermes"]
    block = fenced("python", code)
    text = f"First:\n{block}\n```output\n7\n```\n"
    end = len("First:\n") + len(block)
    stops = {n: protocol.code_end(text[:n]) for n in range(len(text) + 1)}
    assert all(stops[n] is None for n in range(end))
    assert all(stops[n] == end for n in range(end, len(text) + 1))
