"""Prompts and appended messages of every checkpoint family, on small tokenizers (3 s)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.chat_tokenizers import FAMILIES, QWEN_TEMPLATE, byte_level, gemma, llama, qwen

from eightfold.solver.chat.protocol_choice import (
    Protocol,
    ProtocolError,
    load_protocol,
    render_prompt,
)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return load_protocol(request.param())


def test_imports_are_light() -> None:
    code = (
        "import sys, eightfold.solver.chat.protocol_choice, eightfold.solver.chat.prompt_texts;"
        "bad = {'torch', 'transformers', 'jupyter_client', 'numpy'} & set(sys.modules);"
        "sys.exit(', '.join(bad) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_family_is_recognised(protocol: Protocol) -> None:
    names = {"Gemma4": "gemma4", "Hermes": "hermes", "Fenced": "fenced"}
    assert protocol.family == names[type(protocol).__name__]


def test_prompt_holds_problem_range_and_generation_prompt(protocol: Protocol) -> None:
    text = protocol.decode(protocol.render_prompt("What is 6 times 7?"))
    assert "What is 6 times 7?" in text
    assert "from {low} to {high}" in text  # filled by the solver, which knows the range
    assert text.rstrip().endswith(("model", "assistant", "[assistant]"))
    assert protocol.decode(protocol.render_prompt("What is 6 times 7?\n")) == text


def test_plain_prompt_equals_the_template_rendering(protocol: Protocol) -> None:
    problem = "Let $n$ be the number of divisors of 196.\nFind $2^{n}$ – über all."
    split = protocol._render(protocol._messages(problem))
    assert protocol.render_prompt(problem) == protocol._encode(split)


def test_gemma_result_goes_on_in_the_same_turn() -> None:
    protocol = load_protocol(gemma())
    one = protocol.decode(protocol.tool_response(["42"]))
    assert one == 'response:python{value:<|"|>42<|"|>}<tool_response|><|channel>thought\n'
    assert protocol.tool_opener == "<|channel>thought\n"
    two = protocol.decode(protocol.tool_response(["1", "2"]))
    assert two.count("<|tool_response>") == 1
    assert two.count("response:python{value:") == 2
    closed = load_protocol(gemma(reopen=False))
    assert closed.decode(closed.tool_response(["42"])).endswith("}<tool_response|>")
    assert closed.tool_opener == ""


def test_appended_messages_equal_the_template() -> None:
    """Prompt, answer, nudge as raw tokens decode to what the template renders at once."""
    for tokenizer in (gemma(), qwen(), llama()):
        protocol = load_protocol(tokenizer)
        end = tokenizer.eos_token
        grown = protocol.decode(protocol.render_prompt("Add.")) + "It is 4." + end
        grown += protocol.decode(protocol.nudge())
        messages = [
            *protocol._messages("Add."),
            {"role": "assistant", "content": "It is 4."},
            {"role": "user", "content": protocol.prompts.nudge},
        ]
        assert grown == protocol._render(messages)


def test_hermes_results_equal_the_template() -> None:
    protocol = load_protocol(qwen())
    text = protocol.decode(protocol.tool_response(["1", "2"]))
    assert text == (
        "\n<|im_start|>user\n<tool_response>\n1\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert load_protocol(qwen(opens=True)).prompt_opener == "<think>\n"


def test_pause_tokens_hold_family_and_end_tokens() -> None:
    tokenizer = gemma()
    protocol = load_protocol(tokenizer, end_ids=[tokenizer.convert_tokens_to_ids("<eos>")])
    names = tokenizer.convert_ids_to_tokens(list(protocol.pause_token_ids))
    assert set(names) == {"<eos>", "<turn|>", "<|tool_response>"}


def test_unusable_tokenizers_are_named() -> None:
    bare = llama()
    bare.chat_template = None
    with pytest.raises(ProtocolError, match="no chat template"):
        load_protocol(bare)
    bare.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(ProtocolError, match="never"):
        load_protocol(bare)
    bare.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(ProtocolError, match="exactly once"):
        load_protocol(bare)
    harmony = byte_level(["<|channel|>", "<|call|>"], [], eos_token="<|call|>")
    harmony.chat_template = QWEN_TEMPLATE.replace("<tool_call>", "").replace("OPENS", "false")
    with pytest.raises(ProtocolError, match="gpt-oss"):
        load_protocol(harmony)


def test_render_prompt_function() -> None:
    tokenizer = qwen()
    assert render_prompt(tokenizer, "1+1") == load_protocol(tokenizer).render_prompt("1+1")
