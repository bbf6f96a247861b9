"""Tool calls, results and final texts of Gemma 4 (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import gemma

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
        # Other forms of the same call.
        ('<|tool_call>call:python{"code":"print(1)\\nprint(2)"}<tool_call|>',
         ["print(1)\nprint(2)"]),
        ('<|tool_call>call:python{code=<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>call:python(code=<|"|>1<|"|>)<tool_call|>', ["1"]),
        ('<|tool_call>call:python{"code":<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>call:python{code:"print(\\"a\\")"}<tool_call|>', ['print("a")']),
        ('<|tool_call>call:Python{code:<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>call:default_api.python{code:<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>python{code:<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>,}<tool_call|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>,timeout:5}<tool_call|>', ["1"]),
        ('<|tool_call>call:python{timeout:5,code:<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('<|tool_call>{"name": "python", "arguments": {"code": "1"}}<tool_call|>', ["1"]),
        ("<|tool_call>```python\nprint(1)\n```<tool_call|>", ["print(1)\n"]),
        ('<|tool_call>call:python{code:<|"|>```python\nprint(1)\n```<|"|>}<tool_call|>',
         ["print(1)\n"]),
        ("```tool_code\nprint(1)\n```<turn|>", ["print(1)\n"]),
        ('<|tool_call>call:python{<|"|>code<|"|>:<|"|>1<|"|>}<tool_call|>', ["1"]),
        ('call:python{code:<|"|>1<|"|>}<tool_call|>', ["1"]),
        # Missing ends, in turns that the model has ended.
        ('<|tool_call>call:python{code:<|"|>1<|"|><tool_call|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>}<turn|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<turn|>', ["1"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>}\nI wait.<turn|>', ["1"]),
        # Two calls are two calls.
        ('<|tool_call>call:python{code:<|"|>1<|"|>}call:python{code:<|"|>2<|"|>}<tool_call|>',
         ["1", "2"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|><tool_call|><|tool_call>call:python{code:<|"|>2<|"|>}'
         "<tool_call|>", ["1", "2"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>}<|tool_call>call:python{code:<|"|>2<|"|>}<tool_call|>',
         ["1", "2"]),
        ('<|tool_call>call:python{code:<|"|>1<|"|>,code:<|"|>2<|"|>}<tool_call|>', ["1", "2"]),
        # Quote tokens in the code are quotes; escapes count if the code is no Python without them.
        ('<|tool_call>call:python{code:<|"|>print(<|"|>a<|"|>, end=<|"|>b<|"|>)<|"|>}<tool_call|>',
         ['print("a", end="b")']),
        ('<|tool_call>call:python{code:<|"|>d = {<|"|>a<|"|>: {<|"|>b<|"|>}}<|"|>}<tool_call|>',
         ['d = {"a": {"b"}}']),
        ('<|tool_call>call:python{code:<|"|>import math\\nprint(1)<|"|>}<tool_call|>',
         ["import math\nprint(1)"]),
        ('<|tool_call>call:python{code:<|"|>print("a\\nb")<|"|>}<tool_call|>', ['print("a\\nb")']),
        ('<|tool_call>call:python{code:<|"|>%time x\n!ls<|"|>}<tool_call|>', ["%time x\n!ls"]),
        # Drafts and mentions.
        ("<|channel>thought\nI could " + CALL + " it.<channel|>\\boxed{5}<turn|>", []),
        ("<|channel>thought\nI need no <|tool_call> here.<channel|>\\boxed{7}<turn|>", []),
        ("<|channel>thought\n" + CALL + "<channel|><|tool_response>", ["print(1)\n"]),
        ("<|channel>thought\nhm" + CALL + "<|tool_response>", ["print(1)\n"]),
        ("<|channel>thought\n" + CALL.replace("1", "0") + "<channel|>" + CALL, ["print(1)\n"]),
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
        ("<|channel>final\n\\boxed{2}<channel|><turn|>", "\n\\boxed{2}"),
        ("<|channel>thought\n\\boxed{1}<channel|><|channel>final\n2<channel|>", "\n2"),
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
