"""Tool calls, results and final texts of Gemma 4 (1 s)."""

from __future__ import annotations

import pytest
from helpers.call_checks import assert_calls
from helpers.chat_tokenizers import gemma

from eightfold.solver.chat import load_protocol

CALL = '<|tool_call>call:python{code:<|"|>print(1)\n<|"|>}<tool_call|>'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ("<|channel>thought\nhm<channel|>" + CALL + "<|tool_response>", ["print(1)\n"]),
        (CALL * 2 + "<|tool_response>", ["print(1)\n"] * 2),
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
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(gemma()).parse_calls(text), calls)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("<|channel>thought\n\\boxed{1}<channel|>\\boxed{2}<turn|>", "\\boxed{2}"),
        ("<|channel>thought\n\\boxed{1}", ""),
        ("a " + CALL + "<|tool_response>", "a "),
    ],
)
def test_final_text_has_neither_thoughts_nor_calls(text: str, final: str) -> None:
    assert load_protocol(gemma()).final_text(text) == final


def test_tool_results_continue_the_same_turn() -> None:
    protocol = load_protocol(gemma())
    one = protocol.decode(protocol.tool_response(["42"]))
    assert one == 'response:python{value:<|"|>42<|"|>}<tool_response|><|channel>thought\n'
    assert protocol.tool_opener == "<|channel>thought\n"
    two = protocol.decode(protocol.tool_response(["1", "2"]))
    assert two.count("<|tool_response>") == 1
    assert two.count("response:python{value:") == 2
    closed = load_protocol(gemma(reopen=False))
    assert closed.decode(closed.tool_response(["42"])).endswith("}<tool_response|>")
    assert closed.tool_opener == ""


def test_sequences_pause_at_pause_and_end_tokens() -> None:
    tokenizer = gemma()
    protocol = load_protocol(tokenizer, end_ids=[tokenizer.convert_tokens_to_ids("<eos>")])
    names = tokenizer.convert_ids_to_tokens(list(protocol.pause_token_ids))
    assert set(names) == {"<eos>", "<turn|>", "<|tool_response>"}
