"""Framing read from chat templates with habits of their own (3 s)."""

from __future__ import annotations

import json

import pytest
from helpers.solver_cases.chat_tokenizers import QWEN_ADDED, QWEN_TOKENS, byte_level

from eightfold.solver.chat import ChatProtocol, ProtocolError, load_protocol

SYSTEM = (
    "{% if m['role'] == 'system' %}<|im_start|>system\n{{ m['content'] }} {{ tools }}<|im_end|>\n"
)
CALL = "<tool_call>{{ c['function'] | tojson }}</tool_call>"
CALLS = "{% for c in m['tool_calls'] or [] %}" + CALL + "{% endfor %}"
OTHERS = (
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}" + CALLS + "<|im_end|>\n{% endif %}"
)
TOOL = "{% elif m['role'] == 'tool' %}<|im_start|>tool\n{{ m['content'] }}<|im_end|>\n"
START = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = "{% for m in messages %}" + SYSTEM + TOOL + OTHERS + "{% endfor %}" + START
USER_OUTPUT = "\n<|im_start|>user\nOutput:\n```\n1\n```<|im_end|>\n<|im_start|>assistant\n"
TOOL_OUTPUT = "\n<|im_start|>tool\n1<|im_end|>\n<|im_start|>assistant\n"


def protocol_of(template: str) -> ChatProtocol:
    tokenizer = byte_level(QWEN_TOKENS, QWEN_ADDED, eos_token="<|im_end|>")
    tokenizer.chat_template = template
    return load_protocol(tokenizer)


def tool_output(template: str, *outputs: str) -> str:
    protocol = protocol_of(template)
    return protocol.decode(protocol.tool_response(outputs or ["1"]))


def nudge(template: str) -> str:
    protocol = protocol_of(template)
    return protocol.decode(protocol.nudge()).replace(protocol.prompts.nudge, "NUDGE")


def test_ordinary_template() -> None:
    assert tool_output(PLAIN) == TOOL_OUTPUT
    assert nudge(PLAIN) == "\n<|im_start|>user\nNUDGE<|im_end|>\n<|im_start|>assistant\n"
    assert tool_output(PLAIN, "1", "2").count("<|im_start|>tool\n") == 2


@pytest.mark.parametrize(
    "template",
    [
        PLAIN.replace(CALL, "{# <tool_call> #}"),
        PLAIN.replace(CALLS, "") + "{# <tool_call> #}",
        PLAIN.replace("{{ c['function'] | tojson }}", "{{ c['function']['arguments'] + '' }}"),
        PLAIN.replace(
            "{% for c in",
            "{% if m['tool_calls'] | length > 1 %}{{ raise_exception('1') }}{% endif %}{% for c in",
        ),
        PLAIN.replace(
            "{{ m['content'] }}" + CALLS, "{{ '' if m['tool_calls'] else m['content'] }}" + CALLS
        ),
        PLAIN.replace("{{ m['content'] }}" + CALLS, "{{ m['content'] or 'none' }}" + CALLS),
    ],
    ids=["calls hidden", "calls ignored", "text arguments", "one call", "no content", "none"],
)
def test_what_templates_do_with_calls_changes_no_result(template: str) -> None:
    assert tool_output(template) == TOOL_OUTPUT


@pytest.mark.parametrize("closing", ["<|im_end|><|im_end|>\n", "<|im_end|>\n<|im_end|>\n"])
def test_turns_closed_twice_are_closed_once(closing: str) -> None:
    template = PLAIN.replace(CALLS + "<|im_end|>\n", CALLS + closing)
    assert tool_output(template) == TOOL_OUTPUT
    assert nudge(template).startswith("\n<|im_start|>user\nNUDGE")


def test_the_system_prompt_is_not_repeated() -> None:
    repeated = "{% if m['role'] != 'system' %}[{{ messages[0]['content'] }} {{ tools }}]{% endif %}"
    template = PLAIN.replace("{% for m in messages %}", "{% for m in messages %}" + repeated)
    protocol = protocol_of(template)
    for text in (nudge(template), tool_output(template)):
        assert protocol.prompts.system not in text
        assert protocol.prompts.tool not in text
    assert "NUDGE<|im_end|>\n<|im_start|>assistant\n" in nudge(template)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("m['content'] | tojson", json.dumps('é "x"\n\\', ensure_ascii=False)),
        ("m['content'] | tojson(ensure_ascii=true)", json.dumps('é "x"\n\\')),
        ("{'output': m['content']} | tojson", '{"output": "é \\"x\\"\\n\\\\"}'),
        ("{'output': m['content']} | tojson | tojson", '"{\\"output\\": \\"é \\\\\\"x'),
        ("m['content']", 'é "x"\n\\'),
    ],
)
def test_results_are_escaped_as_the_template_does(shown: str, expected: str) -> None:
    template = PLAIN.replace(
        "<|im_start|>tool\n{{ m['content'] }}", "<|im_start|>tool\n{{ " + shown + " }}"
    )
    text = tool_output(template, 'é "x"\n\\')
    assert text.startswith("\n<|im_start|>tool\n" + expected)


@pytest.mark.parametrize(
    "tool",
    [
        "{% elif m['role'] == 'tool' %}{{ raise_exception('no tools') }}",
        "{% elif m['role'] == 'tool' %}",
        "{% elif m['role'] == 'tool' %}{{ m['content'] | upper }}<|im_end|>\n",
    ],
    ids=["raises", "drops", "changes"],
)
def test_results_come_from_the_user_if_the_template_has_none(tool: str) -> None:
    assert tool_output(PLAIN.replace(TOOL, tool)) == USER_OUTPUT


def test_turns_without_end_tokens() -> None:
    template = "{{ tools }}{% for m in messages %}\n{{ m['role'] }}: {{ m['content'] }}" + CALLS
    template += "{% endfor %}{% if add_generation_prompt %}\nassistant: {% endif %}"
    template = template.replace("\n", "{{ '\\n' }}")
    assert tool_output(template) == "\ntool: 1\nassistant: "
    assert nudge(template) == "\nuser: NUDGE\nassistant: "


def test_templates_that_drop_messages_are_refused() -> None:
    drops = PLAIN.replace("{% for m in messages %}", "{% for m in messages[:2] %}")
    with pytest.raises(ProtocolError, match="drops messages"):
        protocol_of(drops)
