"""The place where a model that writes code is stopped, and how the output goes on (2 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES, qwen

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.tool_call import Call

BLOCK = "```python\nprint(1)\n```"


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def protocol(request: pytest.FixtureRequest) -> ChatProtocol:
    return load_protocol(request.param())


@pytest.mark.parametrize(
    ("before", "block", "after"),
    [
        ("", BLOCK, ""),
        ("Let us see:\n\n", BLOCK, "\n"),
        ("So \\boxed{3}. Check:\n", BLOCK, "\n```output\n1\n```\n\\boxed{1}"),
        ("", "```python\nprint(1)\n```", "output\n1\n"),
        ("<think>hm</think>\n", BLOCK, "\n<think>"),
        ("```json\n{}\n```\n", BLOCK, ""),
        ("```bash\npip install x\n```\n", BLOCK, "\n```python\n2\n```"),
        ("", "~~~python\nprint(1)\n~~~", "\n"),
        ("1. So:\n", "   ```python\n   print(1)\n   ```", "\n"),
        ("", '```python\ns = """\n```python\n1\n```\n"""\n```', "\n"),
        ("", "```python\nprint(1)```", "\n"),
        ("```python\n```\n", BLOCK, ""),
    ],
)
def test_model_is_stopped_behind_the_first_block(
    protocol: ChatProtocol, before: str, block: str, after: str
) -> None:
    end = len(before + block)
    assert protocol.code_end(before + block + after) == end
    assert protocol.code_end((before + block)[:-1]) is None
    last = protocol.parse_calls((before + block + after)[:end])[-1]
    assert isinstance(last, Call)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no code",
        "```python\nprint(1)\n",
        "```python\nprint(1)\n``",
        "```python\n\n```\n",
        '```python\ns = """\n```\n',
        '```python\ns = """\n```python\n1\n```',
        "```text\nprint(1)\n```\n",
        "```\nprint(1)\n```\n",
        "````markdown\n```python\n1\n```\n",
        "```output\n1\n```\n",
        '```json\n{"name": "python", "arguments": {"code": "1"}}\n```\n',
        "<think>\n```python\n1\n```\n",
        "<think>\n```python\n1\n```\n</think>\n",
    ],
)
def test_model_is_not_stopped(protocol: ChatProtocol, text: str) -> None:
    assert protocol.code_end(text) is None


@pytest.mark.parametrize(
    ("family", "opening"),
    [
        ("gemma4", '<|tool_call>call:python{code:<|"|>s = """\n'),
        ("hermes", '<tool_call>\n{"name": "python", "arguments": {"code": "s = \'\'\'\n'),
        ("hermes", '<tool_call>\n<function=python>\n<parameter=code>\ns = """\n'),
        ("hermes", "<tool_call>\n"),
        ("glm", '<tool_call>python\n<arg_key>code</arg_key>\n<arg_value>s = """\n'),
        ("mistral", "[TOOL_CALLS]python[ARGS]{\"code\": \"s = '''\n"),
        ("llama3", '<|python_tag|>s = """\n'),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>python\n"),
        (
            "command",
            '<|START_ACTION|>[{"tool_name": "python", "parameters": {"code": "s = \'\'\'\n',
        ),
    ],
)
def test_blocks_in_an_open_call_stop_nothing(family: str, opening: str) -> None:
    assert load_protocol(FAMILIES[family]()).code_end(opening + BLOCK + "\n") is None


def test_output_goes_on_in_the_turn() -> None:
    protocol = load_protocol(qwen())
    assert protocol.decode(protocol.code_output(["1"])) == "\n```output\n1\n```\n"
    assert protocol.decode(protocol.code_output(["1\n"], BLOCK)) == "\n```output\n1\n```\n"
    assert protocol.decode(protocol.code_output(["1"], BLOCK + "\n")) == "```output\n1\n```\n"
    assert protocol.decode(protocol.code_output(["1", "2"])) == (
        "\n```output\n1\n```\n```output\n2\n```\n"
    )
    fenced = protocol.decode(protocol.code_output(["```\nx\n```"]))
    assert fenced == "\n````output\n```\nx\n```\n````\n"
    ids = protocol.code_output(["<|im_end|></think>"])
    assert protocol.untrusted_text.control_ids.isdisjoint(ids)
