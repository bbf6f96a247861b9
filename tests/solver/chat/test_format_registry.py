"""The choice of a chat format, and tokenizers that none of them can use (2 s)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers.solver_cases.chat_tokenizers import (
    FAMILIES,
    HARMONY_TEMPLATE,
    HARMONY_TOKENS,
    QWEN_TEMPLATE,
    QWEN_TOKENS,
    byte_level,
    llama,
)

from eightfold.solver.chat import ProtocolError, load_protocol
from eightfold.solver.chat.format_registry import knows_thoughts
from eightfold.solver.chat.prompt_texts import PROGRAM_FIRST, PROMPT_SETS, PromptChanges
from eightfold.solver.chat.template_options import TemplateOptions


def test_importing_the_chat_formats_is_light() -> None:
    code = (
        "import sys, eightfold.solver.chat, eightfold.solver.chat.prompt_texts;"
        "bad = {'torch', 'transformers', 'jupyter_client', 'numpy'} & set(sys.modules);"
        "sys.exit(', '.join(bad) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_recognized(family: str) -> None:
    protocol = load_protocol(FAMILIES[family]())
    assert protocol.family == family
    assert type(protocol).__name__.removesuffix("Format").lower() == family
    assert protocol.reason.startswith("Tool calls are read ")
    assert protocol.reason.endswith(".")


@pytest.mark.parametrize("tag", ["", "<think>", "[THINK]", "<|channel>"])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_without_thoughts_are_asked_for_a_program_first(family: str, tag: str) -> None:
    vocabulary = {"a": 0} | ({tag: 1} if tag else {})
    assert knows_thoughts(vocabulary, "") == bool(tag)
    assert knows_thoughts({}, f"user: {tag}") == bool(tag)
    tokenizer = FAMILIES[family]()
    asked = "program" in load_protocol(tokenizer).system_message()
    thinks = knows_thoughts(tokenizer.get_vocab(), tokenizer.chat_template)
    assert not (asked and thinks)


def test_the_prompt_of_a_small_qwen_model_asks_for_a_program() -> None:
    tokenizer = byte_level(QWEN_TOKENS, ["<tool_call>", "</tool_call>"], eos_token="<|im_end|>")
    tokenizer.chat_template = QWEN_TEMPLATE.partition("{% if OPENS %}")[0] + "{% endif %}"
    protocol = load_protocol(tokenizer)
    assert protocol.family == "hermes"
    assert protocol.reason.endswith("The prompt is the program first one.")
    prompt = tokenizer.decode(protocol.render_prompt("What is 6 times 7?"))
    assert "6 times 7?\n\nWrite a Python program" in prompt
    assert "Calls:" not in prompt
    protocol = load_protocol(tokenizer, PromptChanges({"request": ""}))
    assert protocol.prompts.request == ""
    assert protocol.prompts.system == PROMPT_SETS[PROGRAM_FIRST].system


@pytest.mark.parametrize("lacking", ["<|call|>", "<|channel|>", "<|end|>"])
def test_a_harmony_template_over_another_vocabulary_is_refused(lacking: str) -> None:
    tokens = [token for token in HARMONY_TOKENS if token != lacking]
    tokenizer = byte_level(tokens, [], eos_token="<|return|>")
    tokenizer.chat_template = HARMONY_TEMPLATE.read_text()
    with pytest.raises(ProtocolError, match=re.escape(f"no token {lacking}; copy tokenizer.json")):
        load_protocol(tokenizer)


def test_unusable_tokenizers_are_refused_with_the_reason() -> None:
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


def test_a_template_of_another_form_decides_against_harmony() -> None:
    """Some vocabularies reserve Harmony's tokens, and some models of it were trained otherwise."""
    other = byte_level(HARMONY_TOKENS, ["<tool_call>"], eos_token="<|return|>")
    other.chat_template = QWEN_TEMPLATE.replace("OPENS", "false")
    assert load_protocol(other).family == "hermes"


@pytest.mark.parametrize("family", FAMILIES)
def test_only_harmony_takes_a_reasoning_effort(family: str) -> None:
    options = TemplateOptions(reasoning_effort="low")
    if family == "harmony":
        assert load_protocol(FAMILIES[family](), options=options).efforts
    else:
        with pytest.raises(ProtocolError, match="leave reasoning_effort out"):
            load_protocol(FAMILIES[family](), options=options)
