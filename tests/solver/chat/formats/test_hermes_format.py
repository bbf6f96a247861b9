"""Tool calls, results and final texts of Qwen and Hermes checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import qwen, seed

from eightfold.solver.chat import load_protocol, parse_calls

JSON = '<tool_call>{"name": "python", "arguments": {"code": "1"}}</tool_call>'
XML = (
    "<tool_call>\n<function=python>\n<parameter=code>\n{}\n</parameter>\n</function>\n</tool_call>"
)


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
        ("<tool_call>\nprint(1)\n</tool_call>", ["print(1)"]),
        # Names and shapes.
        ('<tool_call>{"name": "functions.Python", "parameters": {"code": "1"}}</tool_call>', ["1"]),
        ('<tool_call>{"function": "python", "arguments": {"code": "1"}}</tool_call>', ["1"]),
        ('<tool_call>{"type": "function", "function": {"name": "python", '
         '"arguments": {"code": "1"}}}'
         "</tool_call>", ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1", "timeout": 5}}</tool_call>',
         ["1"]),
        ('<tool_call>{"name": "python", "arguments": "print(1)"}</tool_call>', ["print(1)"]),
        ('<tool_call>{"name": "python", "code": "1"}</tool_call>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": ["a = 1", "a"]}}</tool_call>',
         ["a = 1\na"]),
        ('<tool_call>python\n{"code": "1"}</tool_call>', ["1"]),
        ("<tool_call>\n```python\nprint(1)\n```\n</tool_call>", ["print(1)\n"]),
        ('<tool_call>\n```json\n{"name": "python", "arguments": {"code": "1"}}\n```\n</tool_call>',
         ["1"]),
        ('<tool_call>[{"name": "python", "arguments": {"code": "1"}}]</tool_call>', ["1"]),
        ('<tool_call>"{\\"name\\": \\"python\\", \\"arguments\\": {\\"code\\": \\"1\\"}}"<'
         '/tool_call>',
         ["1"]),
        # Nearly JSON.
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}\n</tool_call>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}}}</tool_call>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1",}}</tool_call>', ["1"]),
        ("<tool_call>{'name': 'python', 'arguments': {'code': 'f(\"it\\'s\")'}}</tool_call>",
         ['f("it\'s")']),
        ('<tool_call>{name: "python", arguments: {code: "1"}}</tool_call>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "print("a", "b")"}}</tool_call>',
         ['print("a", "b")']),
        ('<tool_call>{"name": "python", "arguments": {"code": "d = {"a": 1, "b": {"c": 2}}"}}'
         "</tool_call>",
         ['d = {"a": 1, "b": {"c": 2}}']),
        ('<tool_call>{"arguments": {"code": "print("a")"}, "name": "python"}</tool_call>',
         ['print("a")']),
        ('<tool_call>{"name": "python", "arguments": {"code": """\n    a = 1\n    a\n    """}}'
         "</tool_call>",
         ["a = 1\na\n"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "f(\'a\\nb\')"}}</tool_call>',
         ["f('a\\nb')"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "f(\'\\d\')"}}</tool_call>',
         ["f('\\d')"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "1"}}<|im_end|>', ["1"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "f(1)<|im_end|>', ["f(1)"]),
        ('<tool_call>{"name": "python", "arguments": {"code": "s = "}}""}}</tool_call>',
         ['s = "}}"']),
        # Marks in strings.
        ('<tool_call>{"name": "python", "arguments": {"code": "f(\'</tool_call>\')"}}</tool_call>',
         ["f('</tool_call>')"]),
        (XML.format('f("</tool_call>")'), ['f("</tool_call>")']),
        (XML.format('f("</parameter></function></tool_call>")'),
         ['f("</parameter></function></tool_call>")']),
        # XML with parts left out, in another order, or more of them.
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</function>\n</tool_call>", ["1"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</tool_call>", ["1"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1<|im_end|>", ["1"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</parameter>\n</function>\n<|im_end|>",
         ["1"]),
        ("<function=python>\n<parameter=code>\n1\n</parameter>\n</function>", ["1"]),
        ("<tool_call>\n<function = python>\n<parameter = code>\n1\n</parameter>\n"
         "</function>\n</tool_call>",
         ["1"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</parameter>\n<parameter=timeout>\n5\n"
         "</parameter>\n</function>\n</tool_call>", ["1"]),
        ("<tool_call>\n<function=python>\n<parameter=timeout>\n5\n</parameter>\n<parameter=code>\n1\n"
         "</parameter>\n</function>\n</tool_call>", ["1"]),
        ("<tool_call>\n<function=python>\nprint(1)\n</function>\n</tool_call>", ["print(1)"]),
        (XML.format("1").replace("</tool_call>", "") + XML.format("2"), ["1", "2"]),
        (XML.format("    a = 1\n    a"), ["a = 1\na"]),
        ("<tool_call>\n<function=python>\n<parameter=code>\n1\n</parameter>\n<parameter=code>\n2\n"
         "</parameter>\n</function>\n</tool_call>", ["1", "2"]),
        ('<tool_call>\n<function=python>\n{"code": "1"}\n</function>\n</tool_call>', ["1"]),
        (XML.format("f(1") + XML.format("2"), ["f(1", "2"]),
        # More than one call, and tags too many.
        ('<tool_call>{"name": "python", "arguments": {"code": "f("1")"}\n</tool_call>' + JSON,
         ['f("1")', "1"]),
        ("<tool_call>\n" + JSON, ["1"]),
        (JSON + "\n</tool_call>", ["1"]),
        (JSON.removeprefix("<tool_call>"), ["1"]),
        ('{"tool_calls": [{"name": "python", "arguments": {"code": "1"}}]}<|im_end|>', ["1"]),
        ('{"action": "python", "action_input": "print(1)"}<|im_end|>', ["print(1)"]),
        # Thoughts, mentions, and calls in fences or bare.
        ("<think>\nI run it.\n" + JSON + "<|im_end|>", ["1"]),
        ("<think>\nI run it.\n" + XML.format("1") + "<|im_end|>", ["1"]),
        ("<think>\n" + JSON + "</think>\n\\boxed{3}", []),
        (JSON + "</think>\n\\boxed{3}", []),
        ("<think>\n" + JSON.replace("1", "0") + "</think>\n" + JSON, ["1"]),
        ("<think>\n" + JSON + "</think>\n<|im_end|>", ["1"]),
        ("Use <tool_call> for that. \\boxed{3}", []),
        ("```xml\n" + JSON + "\n```", ["1"]),
        ("```\n" + JSON + "\n" + XML.format("2") + "\n```", ["1", "2"]),
        ('```python\n{"name": "python", "arguments": {}}\nf(1)\n```',
         ['{"name": "python", "arguments": {}}\nf(1)\n']),
        ('```json\n{"name": "python", "arguments": {"code": "1"}}\n```<|im_end|>', ["1"]),
        ('```json\n{"name": "python", "arguments": {"code": "1"}}\n```\nso \\boxed{3}', []),
        ('{"function": "python", "arguments": {"code": "1"}}<|im_end|>', ["1"]),
        ('I call: {"name": "python", "arguments": {"code": "1"}}\nand wait.<|im_end|>', ["1"]),
        ('```json\n{"name": "perimeter", "arguments": {"side": 7}}\n```<|im_end|>', [None]),
        ('```json\n{"name": "area", "arguments": {"side": 7 * pi}}\n```<|im_end|>', [None]),
        ('```json\n{"answer": 7}\n```<|im_end|>', []),
    ],
)  # fmt: skip
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(parse_calls(qwen(), text), calls)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("<think>\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("<think>\\boxed{1}", ""),
    ],
)
def test_final_text_has_no_thoughts(text: str, final: str) -> None:
    assert load_protocol(qwen()).final_text(text) == final


def test_tool_results_equal_the_template() -> None:
    protocol = load_protocol(qwen())
    text = protocol.decode(protocol.tool_response(["1", "2"]))
    assert text == (
        "\n<|im_start|>user\n<tool_response>\n1\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert load_protocol(qwen(opens=True)).prompt_opener == "<think>\n"


def test_tags_of_other_checkpoints_are_read_too() -> None:
    protocol = load_protocol(seed())
    assert protocol.family == "hermes"
    assert "because the chat template has <seed:tool_call>." in protocol.reason
    call = "<seed:think>hm</seed:think><seed:tool_call>\n<function=python>\n<parameter=code>1"
    call += "</parameter>\n</function>\n</seed:tool_call><seed:eos>"
    assert_calls(protocol.parse_calls(call), ["1"])
    phi = '<|tool_call|>[{"name": "python", "arguments": {"code": "1"}}]<|/tool_call|>'
    assert_calls(protocol.parse_calls(phi), ["1"])
