"""Hypothesis strategies for Python code full of what marks calls, thoughts and blocks."""

from __future__ import annotations

from hypothesis import strategies as st

MARKS = [
    "<tool_call>", "</tool_call>", "<function=python>", "<parameter=code>", "</parameter>",
    "</function>", "<arg_key>code</arg_key>", "<arg_value>", "</arg_value>", "<|tool_call>",
    "<tool_call|>", "call:python{code:", "<|tool_response>", "[TOOL_CALLS]", "[ARGS]",
    "<|python_tag|>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>",
    "<|START_ACTION|>", "<|END_ACTION|>", "<think>", "</think>", "[/THINK]", "<channel|>",
    "<|channel>thought", "<|END_THINKING|>", "</thinking>", "```", "\n```\n", "\n```python\n",
    "\n```output\n", "~~~", "`", "\\boxed{1}", '{"name": "python", "arguments": {"code": "1"}}',
    "<|im_end|>", "<turn|>",
]  # fmt: skip
PIECES = ["a", " ", "{", "}", "[", "]", '"', "'", "\\", "\\n", "\n", ",", ":", "}}", '"}', "'}"]
TEXTS = st.lists(st.sampled_from([*MARKS, *PIECES]), max_size=8).map("".join)


def triple_quoted(text: str) -> str:
    """Return a literal that shows line breaks, fences among them, as they are."""
    return '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'


STATEMENTS = st.one_of(
    TEXTS.map(lambda text: f"print({text!r})"),
    TEXTS.map(lambda text: f"s = {triple_quoted(text)}"),
    TEXTS.map(lambda text: "x = 1  # " + text.replace("\n", " ")),
    TEXTS.map(lambda text: f"d = {{{text!r}: [{text!r}, {{1: 2}}]}}"),
    TEXTS.map(lambda text: f"print({text!r}, end={text!r})"),
    st.just("for i in range(3):\n    print(f'{i}: {d}')"),
    st.just("print(rf'\\d{1}')"),
)
PROGRAMS = st.lists(STATEMENTS, min_size=1, max_size=4).map("\n".join)
