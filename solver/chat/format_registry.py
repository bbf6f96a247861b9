"""The list of chat formats, and the choice of the one that a tokenizer needs.

A new format is a module in `formats/` with a subclass of `ChatProtocol`, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .chat_protocol import ChatProtocol, ProtocolError
from .formats.fenced_format import FencedFormat
from .formats.gemma4_format import Gemma4Format
from .formats.hermes_format import HermesFormat
from .prompt_texts import Prompts
from .tool_call import Call, MalformedCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMATS: tuple[type[ChatProtocol], ...] = (Gemma4Format, HermesFormat)
"""Formats in the order in which they are tried; `FencedFormat` serves if none of them matches."""


def load_protocol(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts | None = None,
    end_ids: Sequence[int] = (),
) -> ChatProtocol:
    """Return the chat protocol of a tokenizer's checkpoint family.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompts: texts of the prompt; None takes the defaults.
        end_ids: end tokens of the checkpoint, besides the tokenizer's own one.

    Raises:
        ProtocolError: if there is no chat template or it fails, if a token that the format needs
            is missing, or if the format is Harmony, which is not supported.
    """
    prompts = prompts or Prompts()
    try:
        template: str = tokenizer.get_chat_template(tools=[prompts.python_tool()])
    except (ValueError, AttributeError) as error:
        raise ProtocolError(
            "The tokenizer has no chat template; use an instruction-tuned checkpoint."
        ) from error
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    for chat_format in FORMATS:
        if chat_format.matches(vocabulary, template):
            return chat_format(tokenizer, prompts, end_ids)
    if "<|channel|>" in vocabulary and "<|call|>" in vocabulary:
        raise ProtocolError("Checkpoints in the Harmony format (gpt-oss) are not supported.")
    return FencedFormat(tokenizer, prompts, end_ids)


def parse_calls(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Call | MalformedCall]:
    """Return the tool calls in one turn of the model's text; see `ChatProtocol.parse_calls`."""
    return load_protocol(tokenizer).parse_calls(text)
