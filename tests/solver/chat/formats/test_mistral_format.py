"""Tool calls and results of Mistral checkpoints (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.call_checks import assert_calls
from helpers.solver_cases.chat_tokenizers import mistral

from eightfold.solver.chat import load_protocol

ONE = '{"name": "python", "arguments": {"code": "1"}}'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        (f"[TOOL_CALLS] [{ONE}]</s>", ["1"]),
        (f"[TOOL_CALLS][{ONE}, {ONE.replace('1', '2')}]</s>", ["1", "2"]),
        (f"[TOOL_CALLS]{ONE}</s>", ["1"]),
        ('[TOOL_CALLS]python[ARGS]{"code": "1"}</s>', ["1"]),
        ('[TOOL_CALLS]python[ARGS]{"code": "1"}[TOOL_CALLS]python[ARGS]{"code": "2"}', ["1", "2"]),
        ('[TOOL_CALLS]python[CALL_ID]abcdefghi[ARGS]{"code": "1"}</s>', ["1"]),
        ('[TOOL_CALLS]python{"code": "print("a")"}</s>', ['print("a")']),
        ('[TOOL_CALLS]python[ARGS]{"code": "print(1)"</s>', ["print(1)"]),
        ('[TOOL_CALLS]python[ARGS]{"code": "print(1)</s>', ["print(1)"]),
        ('[TOOL_CALLS]python[ARGS]{"code": "f(\'[TOOL_CALLS]\')"}</s>', ["f('[TOOL_CALLS]')"]),
        ('[TOOL_CALLS]search[ARGS]{"code": "1"}</s>', [None]),
        ("[TOOL_CALLS]python[ARGS]{1}</s>", [None]),
        ("I need no [TOOL_CALLS]. \\boxed{1}</s>", []),
        (f"[THINK]maybe [TOOL_CALLS][{ONE}][/THINK]\\boxed{{1}}</s>", []),
        (f"[THINK]hm[/THINK][TOOL_CALLS][{ONE}]</s>", ["1"]),
        ("```python\nprint(1)\n```</s>", ["print(1)\n"]),
    ],
)
def test_calls_are_parsed(text: str, calls: list[str | None]) -> None:
    assert_calls(load_protocol(mistral()).parse_calls(text), calls)


def test_results_are_escaped_and_nothing_is_repeated() -> None:
    """The template writes results as JSON, and the system prompt into the last user turn."""
    protocol = load_protocol(mistral())
    assert protocol.decode(protocol.tool_response(['a\n"é"\\'])) == (
        '[TOOL_RESULTS]{"content": "a\\n\\"é\\"\\\\", "call_id": "call00000"}[/TOOL_RESULTS]'
    )
    assert protocol.decode(protocol.nudge()) == f"[INST]{protocol.prompts.nudge}[/INST]"
    prompt = protocol.decode(protocol.render_prompt("1"))
    assert "[AVAILABLE_TOOLS]" in prompt
    assert protocol.prompts.system in prompt
