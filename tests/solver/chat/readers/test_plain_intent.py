"""Calls whose intent is plain although their form is nobody's (2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES, llama, qwen
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.chat import load_protocol
from eightfold.solver.chat.readers.python_code import block_code, is_python, shows_code
from eightfold.solver.chat.tool_call import Call, MalformedCall, named_call

FENCED, HERMES = load_protocol(llama()), load_protocol(qwen())


def codes(text: str, hermes: bool = False) -> list[str]:
    found = (HERMES if hermes else FENCED).parse_calls(text)
    return [call.code if isinstance(call, Call) else f"MALFORMED: {call.reason}" for call in found]


@pytest.mark.parametrize("code", ["print(6 * 7)", "import math", "for i in x:\n    f(i)"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_without_a_language_runs_if_it_can_be_nothing_but_python(
    family: str, code: str
) -> None:
    protocol = load_protocol(FAMILIES[family]())
    text = f"I compute:\n```\n{code}\n```"
    assert protocol.parse_calls(text) == [Call(f"{code}\n")]
    assert protocol.code_end(text) is None  # only at the turn's end
    assert protocol.parse_calls(f"{text}\nSo \\boxed{{3}}") == []


@pytest.mark.parametrize(
    "content", ["42", "x = 5", "x + 2", "A -> B", "the sum", "def of x", "f(3)", "[1, 2]", ""]
)
def test_other_blocks_without_a_language_do_not(content: str) -> None:
    assert codes(f"See:\n```\n{content}\n```\n") == []


def test_the_output_of_a_block_does_not_run_even_if_it_is_python() -> None:
    block = "```python\nprint('print(1)')\n```\n"
    for shown in ("```\nprint(1)\n```", "Output:\n```\nprint(1)\n```"):
        assert codes(block + shown) == ["print('print(1)')\n"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run ```python print(2**10)``` now.", ["print(2**10)"]),
        ("```py import math; print(math.pi)```", ["import math; print(math.pi)"]),
        ("Use ```python x``` for it.", []),
        ("So ```python print(3)``` gives \\boxed{3}.", []),
        ("```bash print(3)```", []),
    ],
)
def test_a_block_in_one_line(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("session", "typed"),
    [
        (">>> 1+1\n2\n", "1+1\n"),
        (">>> while 1:\n...     break\n...\n0\n1\n", "while 1:\n    break\n\n"),
        ("In [1]: x = 3\n\nIn [2]: x\nOut[2]: 3\n", "x = 3\nx\n"),
        ("In [1]: if 1:\n   ...:     print(2)\n2\n", "if 1:\n    print(2)\n"),
        ("x = 1\nprint('>>> 1')\n", "x = 1\nprint('>>> 1')\n"),
        ("s = '''\n>>> 1\n'''\n", "s = '''\n>>> 1\n'''\n"),
    ],
)  # fmt: skip
def test_what_was_typed_in_a_session_runs(session: str, typed: str) -> None:
    assert block_code(session) == typed
    assert codes(f"```python\n{session}```") == [typed]


@given(st.text(alphabet="ab1 =+()\n'\"#>.:", max_size=40))
def test_python_is_left_as_it_is(code: str) -> None:
    if is_python(code):
        assert block_code(code) == code


@pytest.mark.parametrize("head", ["", "python\n", "\nPython\n", "code_interpreter\n"])
@pytest.mark.parametrize(
    "code", ["print(1)", "import math\nprint(math.pi)", "print('</tool_call>')", "def f():\n  pass"]
)
def test_bare_code_in_an_envelope_runs(head: str, code: str) -> None:
    text = f"<tool_call>{head}{code}\n</tool_call>"
    assert codes(text, hermes=True) == [code]
    assert codes(f"{text}\n{text}<|im_end|>", hermes=True) == [code, code]


@pytest.mark.parametrize("body", ["none", "solve(x)", "a b", "", "x = "])
def test_anything_else_in_an_envelope_is_told(body: str) -> None:
    found = codes(f"<tool_call>{body}</tool_call>", hermes=True)
    assert len(found) == 1
    assert found[0].startswith("MALFORMED")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"input": "print(1)"}, Call("print(1)")),
        ({"expression": "2 + 2"}, Call("2 + 2")),
        ({"query": ["a = 1\n", "a"]}, Call("a = 1\na")),
        ({"code": "1", "timeout": 3}, Call("1")),
        ({"input": 5}, MalformedCall("python takes one string argument named code")),
        ({"a": "1", "b": "2"}, MalformedCall("python takes one string argument named code")),
        ({}, MalformedCall("python takes one string argument named code")),
        ({"code": " "}, MalformedCall("the code is empty")),
    ],
)
def test_the_only_argument_is_the_code(arguments: object, expected: object) -> None:
    assert named_call("python", arguments) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "runs"),
    [
        ("height", {"code": "import math; print(math.pi)"}, True),
        ("calculate_sum", {"code": "def f(): return 1\nf()"}, True),
        ("search", {"code": "1"}, False),
        ("simplify", {"code": "x ="}, False),
        ("simplify", {"code": "1", "x": 2}, False),
        ("simplify", {"expression": "1"}, False),
        ("bash", {"code": "import ls"}, False),
        ("JavaScript", {"code": "print(1)"}, False),
        ("solve", {}, False),
    ],
)
def test_an_invented_name_does_not_matter_if_there_is_code(
    name: str, arguments: dict[str, object], runs: bool
) -> None:
    told = MalformedCall(f"there is no tool {name}, only python")
    assert named_call(name, arguments) == (Call(str(arguments["code"])) if runs else told)


@pytest.mark.parametrize(
    ("code", "shows"),
    [
        ("print(1)", True),
        ("import x", True),
        ("def f(): pass", True),
        ("class A: pass", True),
        ("while x: f()", True),
        ("with f() as g: pass", True),
        ("x.print(1)", False),
        ("print", False),
        ("a = 3", False),
        ("3", False),
        ("import", False),
    ],
)
def test_what_can_be_nothing_but_python(code: str, shows: bool) -> None:
    assert shows_code(code) is shows
