"""Tool calls and results of Llama 3 checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import llama3

from eightfold.solver.chat import load_protocol

ONE = '{"name": "python", "parameters": {"code": "1"}}'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ("<|python_tag|>print(1)<|eom_id|>", ["print(1)"]),
        ("<|python_tag|>print(1)\n<|python_tag|>print(2)<|eom_id|>", ["print(1)\n", "print(2)"]),
        ("<|python_tag|>print('<|python_tag|>')<|eom_id|>", ["print('<|python_tag|>')"]),
        ("<|python_tag|>%time 1<|eom_id|>", ["%time 1"]),
        ("<|python_tag|>```python\nprint(1)\n```<|eom_id|>", ["print(1)\n"]),
        ("<|python_tag|>" + ONE + "<|eom_id|>", ["1"]),
        ('<|python_tag|>python.call(code="print(1)")<|eom_id|>', ["print(1)"]),
        (ONE + "<|eot_id|>", ["1"]),
        (ONE + "; " + ONE.replace("1", "2") + "<|eot_id|>", ["1", "2"]),
        ('{"type": "function", ' + ONE[1:] + "<|eot_id|>", ["1"]),
        (ONE + "\nso \\boxed{1}<|eot_id|>", []),
        ('<function=python>{"code": "1"}</function><|eom_id|>', ["1"]),
        ('[python(code="1"), python(code="""x = "a"\nx""")]<|eot_id|>', ["1", 'x = "a"\nx']),
        ("python(code='1\n2')<|eot_id|>", ["1\n2"]),
        ('{"name": "search", "parameters": {"code": "1"}}<|eot_id|>', [None]),
        ("<|python_tag|> <|eom_id|>", [None]),
        ("```python\nprint(1)\n```<|eot_id|>", ["print(1)\n"]),
    ],
)
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(llama3()).parse_calls(text), calls)


def test_results_come_from_ipython_as_the_template_escapes_them() -> None:
    """The template takes one call a turn, and writes results as JSON."""
    protocol = load_protocol(llama3())
    header = "<|start_header_id|>ipython<|end_header_id|>\n\n"
    assert protocol.decode(protocol.tool_response(['1 "a"', "2"])) == (
        f'{header}"1 \\"a\\""<|eot_id|>{header}"2"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    names = protocol.tokenizer.convert_ids_to_tokens(list(protocol.pause_token_ids))
    assert set(names) == {"<|eom_id|>", "<|eot_id|>"}
