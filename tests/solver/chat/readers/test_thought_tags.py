"""Thoughts in every format: what stands in them is neither an answer nor lost (2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import FAMILIES

from eightfold.solver.answers import answer
from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.readers.thought_tags import open_thought

TAGS = [
    ("<think>", "</think>"),
    ("<Think>", "</Think>"),
    ("<thinking>", "</thinking>"),
    ("<think>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
]
BLOCK = "```python\nprint(1)\n```\n"


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def protocol(request: pytest.FixtureRequest) -> ChatProtocol:
    return load_protocol(request.param())


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_no_box_is_read_from_a_thought(protocol: ChatProtocol, opening: str, closing: str) -> None:
    assert protocol.final_text(f"{opening}\\boxed{{1}}") == ""
    assert protocol.final_text(f"{opening}\\boxed{{1}}{closing}\\boxed{{2}}") == "\\boxed{2}"
    assert protocol.final_text(f"\\boxed{{1}}{closing}\\boxed{{2}}") == "\\boxed{2}"
    assert protocol.final_text(f"a{opening}\\boxed{{1}}{closing}b{opening}\\boxed{{3}}") == "ab"


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_a_thought_between_two_boxes_parts_them(
    protocol: ChatProtocol, opening: str, closing: str
) -> None:
    text = f"{opening}a{closing}\\boxed{{1}}{opening}b \\boxed{{3}}{closing}\\boxed{{2}}"
    assert answer(protocol.final_text(text)) == 2


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_drafts_do_not_run_and_calls_are_not_lost(
    protocol: ChatProtocol, opening: str, closing: str
) -> None:
    thought = f"{opening}hm\n{BLOCK}"
    assert_calls(protocol.parse_calls(thought), ["print(1)\n"])
    assert_calls(protocol.parse_calls(thought + closing), ["print(1)\n"])
    assert_calls(protocol.parse_calls(thought + closing + "so \\boxed{1}"), [])
    assert_calls(protocol.parse_calls(thought + "so \\boxed{1}"), [])
    draft = thought.replace("1", "0")
    assert_calls(protocol.parse_calls(draft + closing + BLOCK), ["print(1)\n"])
    assert protocol.code_end(thought) is None
    assert protocol.code_end(thought + closing) is None
    end = len(draft + closing + BLOCK) - 1
    assert protocol.code_end(draft + closing + BLOCK) == end


def test_tags_in_code_are_code(protocol: ChatProtocol) -> None:
    code = "print('</think> <think> [/THINK] <channel|>')\n"
    block = f"```python\n{code}```"
    assert_calls(protocol.parse_calls("<think>hm</think>" + block), [code])
    assert_calls(protocol.parse_calls("<think>hm\n" + block), [code])
    assert protocol.final_text(f"{block} so \\boxed{{2}}") == " so \\boxed{2}"


def test_final_channel_is_no_thought(protocol: ChatProtocol) -> None:
    text = "<|channel>thought\n\\boxed{1}<channel|><|channel>final\n\\boxed{2}<channel|>"
    assert protocol.final_text(text) == "\n\\boxed{2}"
    assert protocol.final_text("<|channel>analysis\n\\boxed{1}<channel|>") == ""


def test_open_thought() -> None:
    assert open_thought("<|assistant|>\n<think>\n") == "<think>\n"
    assert open_thought("<think>\n\n</think>\n\n") == ""
    assert open_thought("<think>a</think><|channel>thought\n") == "<|channel>thought\n"
