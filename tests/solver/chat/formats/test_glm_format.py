"""Tool calls, results and thoughts of GLM checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.call_writers import glm as call
from helpers.solver_cases.chat_tokenizers import glm

from eightfold.solver.chat import load_protocol

OPEN = "<tool_call>python\n<arg_key>code</arg_key>\n<arg_value>"
OTHER = "<arg_key>timeout</arg_key>\n<arg_value>5</arg_value>\n"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        (call("print(1)\n") + "<|observation|>", ["print(1)\n"]),
        (call("1") + "\n" + call("2"), ["1", "2"]),
        (OPEN + "1</arg_value>\n<|observation|>", ["1"]),
        (OPEN + "1\n</tool_call><|observation|>", ["1\n"]),
        (OPEN + "1", [None]),
        (OPEN + "1</arg_value>" + OTHER + "</tool_call>", ["1"]),
        (call("1").replace("<arg_key>code", OTHER + "<arg_key>code"), ["1"]),
        (call("f('</arg_value></tool_call>')"), ["f('</arg_value></tool_call>')"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}}</tool_call>', ["1"]),
        (call("1").replace("python", "search"), [None]),
        ("<think>maybe " + call("0") + "</think>\n\\boxed{1}", []),
        ("<think>maybe " + call("1") + "<|observation|>", ["1"]),
        ("```python\nprint(1)\n```<|user|>", ["print(1)\n"]),
    ],
)
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(glm()).parse_calls(text), calls)


def test_model_waits_at_its_observation_token() -> None:
    protocol = load_protocol(glm())
    assert protocol.call_id == protocol.tokenizer.convert_tokens_to_ids("<|observation|>")
    assert protocol.decode(protocol.tool_response(["1", '2 "3"'])) == (
        "\n<tool_response>\n1\n</tool_response>"
        '\n<tool_response>\n2 "3"\n</tool_response><|assistant|>\n<think>'
    )
    assert protocol.tool_opener == protocol.prompt_opener == "<think>"
    assert protocol.decode(protocol.nudge()).startswith("\nGive only")  # <|user|> ended the turn
