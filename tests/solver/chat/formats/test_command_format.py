"""Tool calls, results and thoughts of Command checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import command

from eightfold.solver.chat import load_protocol

ONE = '{"tool_call_id": "0", "tool_name": "python", "parameters": {"code": "1"}}'
OPEN, CLOSE = "<|START_ACTION|>", "<|END_ACTION|>"
END = "<|END_OF_TURN_TOKEN|>"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("<|START_RESPONSE|>no call<|END_RESPONSE|>", []),
        (f"{OPEN}[\n    {ONE}\n]{CLOSE}{END}", ["1"]),
        (f"{OPEN}[{ONE}, {ONE.replace('1', '2')}]{CLOSE}{END}", ["1", "2"]),
        (f"{OPEN}{ONE}{CLOSE}{END}", ["1"]),
        (f"{OPEN}[{ONE}]{END}", ["1"]),
        (f"{OPEN}[{ONE}{CLOSE}", ["1"]),
        (f"{OPEN}[{ONE}]", [None]),
        (OPEN + ONE.replace("1", f"f('{CLOSE}')") + CLOSE, [f"f('{CLOSE}')"]),
        (OPEN + ONE.replace('"1"', '"print("a")"') + CLOSE, ['print("a")']),
        (OPEN + ONE.replace("python", "search") + CLOSE, [None]),
        (f"{OPEN}[1]{CLOSE}", [None]),
        (f"<|START_THINKING|>{OPEN}{ONE}{CLOSE}<|END_THINKING|>\\boxed{{1}}{END}", []),
        (f"<|START_THINKING|>I run it.<|END_THINKING|>{OPEN}[{ONE}]{CLOSE}{END}", ["1"]),
        (f"Action: ```json\n[\n{ONE}\n]\n```{END}", ["1"]),
        (f"```python\nprint(1)\n```{END}", ["print(1)\n"]),
    ],
)
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(command()).parse_calls(text), calls)


def test_results_are_escaped_in_turns_of_the_system() -> None:
    protocol = load_protocol(command())
    text = protocol.decode(protocol.tool_response(['a\n"b"', "2"]))
    assert text.startswith("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[")
    assert '"0": "a\\n\\"b\\""\n' in text
    assert text.count("<|START_TOOL_RESULT|>") == 2
    assert text.endswith("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>")
