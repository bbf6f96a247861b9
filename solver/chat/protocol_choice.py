"""Chooses a checkpoint family's format: prompts, tool calls and tool results.

Imports neither torch nor transformers; the tokenizer is any Hugging Face tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .chat_protocol import Protocol, ProtocolError
from .fenced_format import Fenced
from .gemma4_format import Gemma4
from .hermes_format import Hermes
from .prompt_texts import Prompts
from .tool_call import Call, MalformedCall

__all__ = [
    "Call",
    "MalformedCall",
    "Protocol",
    "ProtocolError",
    "end_token_ids",
    "load_protocol",
    "parse_calls",
    "render_prompt",
]


def load_protocol(
    tokenizer: Any, prompts: Prompts | None = None, end_ids: Sequence[int] = ()
) -> Protocol:
    """The protocol of a tokenizer's family; `end_ids` as `end_token_ids` gives them.

    Raises:
        ProtocolError: no chat template, one that fails, or the unsupported Harmony format.
    """
    try:
        template = tokenizer.get_chat_template(tools=[Prompts().python_tool()])
    except (ValueError, AttributeError) as error:
        raise ProtocolError(
            "The tokenizer has no chat template; use an instruction-tuned checkpoint."
        ) from error
    prompts = prompts or Prompts()
    tokens = tokenizer.get_vocab()
    if "<|tool_call>" in tokens and "<|tool_response>" in tokens:
        return Gemma4(tokenizer, prompts, end_ids)
    if "<tool_call>" in template:
        return Hermes(tokenizer, prompts, end_ids)
    if "<|channel|>" in tokens and "<|call|>" in tokens:
        raise ProtocolError("Checkpoints of the Harmony format (gpt-oss) are not supported.")
    return Fenced(tokenizer, prompts, end_ids)


def end_token_ids(model_dir: str | Path) -> tuple[int, ...]:
    """The end tokens named by a checkpoint's config.json and generation_config.json together.

    Raises:
        ProtocolError: one of them is no token's id.
    """
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = Path(model_dir) / name
        table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for part in (table, table.get("text_config") or {}):
            value = part.get("eos_token_id")
            for index in value if isinstance(value, list) else [] if value is None else [value]:
                if not isinstance(index, int) or index < 0:
                    raise ProtocolError(
                        f"{path}: eos_token_id must be a token's id or a list of them, "
                        f"not {value!r}."
                    )
                found.add(index)
    return tuple(sorted(found))


def render_prompt(tokenizer: Any, problem: str, prompts: Prompts | None = None) -> list[int]:
    """Token ids of a problem's prompt; see `Protocol.render_prompt`."""
    return load_protocol(tokenizer, prompts).render_prompt(problem)


def parse_calls(tokenizer: Any, text: str) -> list[Call | MalformedCall]:
    """The tool calls in one turn of the model's text; see `Protocol.parse_calls`."""
    return load_protocol(tokenizer).parse_calls(text)
