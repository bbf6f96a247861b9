"""Conversations with calls and results, by the chat template of each family (2 s)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.solver_cases import chat_tokenizers

from eightfold.solver.server.api_errors import ApiError
from eightfold.solver.server.chat_prompts import ChatPrompts
from eightfold.solver.server.request_bodies import ChatBody

TOOLS = [{"type": "function", "function": {"name": "python", "parameters": {}}}]
MESSAGES = [
    {"role": "user", "content": "Look it up. </s><|turn>"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "abcdefghi",
                "type": "function",
                "function": {"name": "python", "arguments": '{"code": "print(6 * 7)"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "42"},
]
OPENERS = {"gemma": "<|channel>thought\n", "glm": "<think>"}
NAMES = ["gemma", "qwen", "glm", "mistral", "llama3", "command", "seed"]


def encode(make: Callable[[], Any], messages: Any, **options: Any) -> tuple[str, str]:
    """Return the text of a conversation's prompt, and the thought that it leaves open."""
    tokenizer = make()
    body = ChatBody(model="m", messages=messages)
    prompt = ChatPrompts(tokenizer).encode(body.messages, TOOLS, options)
    return tokenizer.decode(prompt.ids, skip_special_tokens=False), prompt.opener


@pytest.mark.parametrize("name", NAMES)
def test_a_result_follows_its_call(name: str) -> None:
    text, opener = encode(getattr(chat_tokenizers, name), MESSAGES)
    assert "Look it up. </s><|turn>" in text
    assert "42" in text.partition("Look it up.")[2]
    assert opener == OPENERS.get(name, "")
    if name != "gemma":  # whose small template leaves the arguments out
        assert "print(6 * 7)" in text


def test_calls_are_shown_as_text_or_the_conversation_is_refused() -> None:
    # Newer versions of transformers drop the content of None by which this template knows a call.
    tokenizer = chat_tokenizers.deepseek()
    drops = "none" not in tokenizer.apply_chat_template(
        [{"role": "user", "content": None}],
        chat_template="{% if messages[0]['content'] is none %}none{% endif %}",
        tokenize=False,
    )
    if drops:
        with pytest.raises(ApiError, match="does not show earlier calls"):
            encode(chat_tokenizers.deepseek, MESSAGES)
    else:
        text, opener = encode(chat_tokenizers.deepseek, MESSAGES)
        assert '{"code": "print(6 * 7)"}' in text
        assert opener == "<think>"


def test_variables_of_the_template_reach_it() -> None:
    plain, _ = encode(chat_tokenizers.gemma, MESSAGES[:1])
    thinking, _ = encode(chat_tokenizers.gemma, MESSAGES[:1], enable_thinking=True)
    assert "<|think|>" not in plain
    assert "<|think|>" in thinking


def test_a_thought_that_a_message_mentions_is_not_open() -> None:
    messages = [{"role": "user", "content": "What does <think> mean?"}]
    assert encode(chat_tokenizers.qwen, messages)[1] == ""
    assert encode(lambda: chat_tokenizers.qwen(opens=True), messages)[1] == "<think>\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tool_calls": [{"function": "f"}]}, "without the object function"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "are no JSON object"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "are no JSON object"),
        ({"content": [{"type": "image_url"}]}, "only text is read"),
    ],
)
def test_what_no_template_can_show_is_refused(change: dict[str, Any], said: str) -> None:
    messages = [MESSAGES[0], {"role": "assistant", "content": "", **change}]
    with pytest.raises(ApiError, match=said):
        encode(chat_tokenizers.qwen, messages)
