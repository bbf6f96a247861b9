"""Fenced blocks of Python as tool calls (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import llama

from eightfold.solver.chat import load_protocol


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        ("Let us see:\n```python\nprint(1)\n```", ["print(1)\n"]),
        ("```py\n1\n```\nand\n```python\n2\n```\n", ["1\n", "2\n"]),
        ("```python\n1\n```\nso \\boxed{1}", []),
        ("```\nno language\n```", []),
        ("```python\nprint(", [None]),
        ("```python\n \n```", [None]),
        ("```python\nprint(1)\n<end>", ["print(1)\n"]),
        ("<think>hm\n```python\nprint(1)\n```<end>", ["print(1)\n"]),
        ("<think>```python\n0\n```</think>\n```python\n1\n```", ["1\n"]),
        ("<think>```python\n0\n</think>\n\\boxed{1}", []),
        # Forms of the fence.
        ("```python\r\nprint(1)\r\n```", ["print(1)\r\n"]),
        ("~~~python\nprint(1)\n~~~", ["print(1)\n"]),
        ("``` python\nprint(1)\n```", ["print(1)\n"]),
        ("Code: ```python\nprint(1)```", ["print(1)"]),
        ("1. So:\n   ```python\n   if x:\n     y\n   ```", ["if x:\n  y\n"]),
        ("- ```python\n  print(1)\n  ```", ["print(1)\n"]),
        ("```python\n    a = 1\n    a\n```", ["a = 1\na\n"]),
        ("> ```python\n> print(1)\n> ```", ["print(1)\n"]),
        ("```\n```python\nprint(1)\n```", ["print(1)\n"]),
        # Fences in strings and comments, and strings that are none.
        ('```python\nprint("```")\n```', ['print("```")\n']),
        ('```python\ns = """\n```python\n```\n"""\n```', ['s = """\n```python\n```\n"""\n']),
        ("```python\n# don't ``` do\n1\n```", ["# don't ``` do\n1\n"]),
        ("```python\nf('x)\n```", ["f('x)\n"]),
        ("```python\ns = \"\"\"a\n```\nso\n```python\nt = \"\"\"b\"\"\"\n```",
         ['s = """a\n', 't = """b"""\n']),
        ('```python\n{"name": "python", "arguments": {"code": "1"}}\n```', ["1"]),
        # A closing fence left out.
        ("```python\n1\n```python\n2\n```", ["1\n", "2\n"]),
        ("```python\n1\n```output\n2\n```", ["1\n"]),
        # Blocks of other languages, with and without others inside.
        ("```bash\nls\n```", []),
        ("```output\n1\n```", []),
        ("````markdown\n```python\n1\n```\n````", []),
        ("```text\n```python\n1\n```", []),
        # Outputs that the model invents make a call of what would be part of the answer.
        ("```python\n1\n```\n```output\n5\n```\nso \\boxed{5}", ["1\n"]),
        ("```python\n1\n```\n\n**Output:**\n```\n5\n```\nso \\boxed{5}", ["1\n"]),
        ("```python\n1\n```\n```\n5\n```\nso \\boxed{5}", ["1\n"]),
        ("```python\n1\n```\nThis prints:\n```text\n5\n```\nso \\boxed{5}", ["1\n"]),
        ("```python\n1\n```\nThe result is:\n```\n\\boxed{5}\n```", []),
        ("```python\n1\n```\nThus:\n```\n5\n```\nso \\boxed{5}", []),
        ("so \\boxed{5}\n```python\n1\n```", ["1\n"]),
    ],
)  # fmt: skip
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(llama()).parse_calls(text), calls)


@pytest.mark.parametrize(
    "tag",
    [
        "python",
        "Python",
        "PYTHON",
        "py",
        "py3",
        "python3",
        "python3.11",
        "ipython",
        "ipython3",
        "{python}",
        "{.python}",
        "jupyter",
        'python title="x"',
        "python-repl",
        "python,editable",
        "pycon",
        "sage",
        "tool_code",
    ],
)
def test_names_of_python(tag: str) -> None:
    assert_calls(load_protocol(llama()).parse_calls(f"```{tag}\nprint(1)\n```"), ["print(1)\n"])


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("```python\n'\\boxed{1}'\n```\nthus \\boxed{2}", "\nthus \\boxed{2}"),
        ("```python\n1\n```\n```output\n\\boxed{1}\n```\nthus", "\n\nthus"),
        ("```\n\\boxed{2}\n```", "```\n\\boxed{2}\n```"),
    ],
)
def test_final_text_has_neither_code_nor_outputs(text: str, final: str) -> None:
    assert load_protocol(llama()).final_text(text) == final
