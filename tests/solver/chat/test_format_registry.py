"""The choice of a chat format, and tokenizers that none of them can use (2 s)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES, QWEN_TEMPLATE, byte_level, llama

from eightfold.solver.chat import ProtocolError, load_protocol


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
    harmony = byte_level(["<|channel|>", "<|call|>"], [], eos_token="<|call|>")
    harmony.chat_template = QWEN_TEMPLATE.replace("<tool_call>", "").replace("OPENS", "false")
    with pytest.raises(ProtocolError, match="gpt-oss"):
        load_protocol(harmony)
