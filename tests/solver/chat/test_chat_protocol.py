"""Prompts and appended messages of every chat format, on small tokenizers (2 s)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES, gemma, llama, llama3, qwen, seed
from transformers import PreTrainedTokenizerFast

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.prompt_texts import Prompts

GENERATION_PROMPTS = (
    "model",
    "assistant",
    "[assistant]",
    "<|assistant|>\n<think>",
    "[/INST]",
    "assistant<|end_header_id|>",
    "<｜Assistant｜><think>",
    "<|CHATBOT_TOKEN|>",
)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def protocol(request: pytest.FixtureRequest) -> ChatProtocol:
    return load_protocol(request.param())


def test_prompt_holds_problem_range_and_generation_prompt(protocol: ChatProtocol) -> None:
    text = protocol.decode(protocol.render_prompt("What is 6 times 7?"))
    assert "What is 6 times 7?" in text
    assert "from {low} to {high}" in text  # the solver, which knows the range, fills it in
    assert text.rstrip().endswith(GENERATION_PROMPTS)
    assert protocol.decode(protocol.render_prompt("What is 6 times 7?\n")) == text


def test_prompt_without_control_tokens_equals_the_template(protocol: ChatProtocol) -> None:
    problem = "Let $n$ be the number of divisors of 196.\nFind $2^{n}$ – über all."
    rendered = protocol._render(protocol._messages(problem))
    assert protocol.render_prompt(problem) == protocol._encode(rendered)


@pytest.mark.parametrize("build", [gemma, qwen, llama, llama3, seed])
def test_appended_messages_equal_the_template(build: Callable[[], PreTrainedTokenizerFast]) -> None:
    """Prompt, answer and nudge as token ids decode to what the template renders at once."""
    tokenizer = build()
    protocol = load_protocol(tokenizer)
    grown = protocol.decode(protocol.render_prompt("Add.")) + "It is 4." + tokenizer.eos_token
    grown += protocol.decode(protocol.nudge())
    messages = [
        *protocol._messages("Add."),
        {"role": "assistant", "content": "It is 4."},
        {"role": "user", "content": protocol.prompts.nudge},
    ]
    assert grown == protocol._render(messages)


def test_without_a_description_of_the_tool_the_template_is_given_none() -> None:
    prompts = Prompts(tool="", fenced="Write fenced blocks.")
    protocol = load_protocol(qwen(), prompts)
    prompt = protocol.decode(protocol.render_prompt("Add."))
    assert "Write fenced blocks." in prompt
    assert "<tool_call>" not in prompt
    native = load_protocol(qwen())
    assert "<tool_call>" in native.decode(native.render_prompt("Add."))
    assert [call.code for call in protocol.parse_calls("```python\n1\n```")] == ["1\n"]
    assert "<tool_response>" not in protocol.decode(protocol.tool_response(["1"]))


def test_request_and_opening_frame_the_problem(protocol: ChatProtocol) -> None:
    prompts = Prompts(request="Write a program.", opening="Let us compute:\n```python\n")
    framed = load_protocol(protocol.tokenizer, prompts)
    protocol = load_protocol(protocol.tokenizer, Prompts())
    plain = protocol.decode(protocol.render_prompt("Add <|x|>."))
    text = framed.decode(framed.render_prompt("Add <|x|>."))
    expected = plain.replace("Add <|x|>.", "Add <|x|>.\n\nWrite a program.")
    # In Harmony the text in front of what the model writes is not in a message yet.
    head = "<|channel|>analysis<|message|>" if protocol.family == "harmony" else ""
    assert text == f"{expected}{head}Let us compute:\n```python\n"
    # What the model writes goes on from the opening.
    written = framed.prompt_opener + "print(1)\n```\n"
    if (
        framed.prompt_opener == prompts.opening
    ):  # else it stands in a thought, where nothing is stopped
        assert framed.code_end(written) == len(written) - 1
    assert [call.code for call in framed.parse_calls(written)] == ["print(1)\n"]
