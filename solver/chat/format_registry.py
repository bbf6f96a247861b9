"""The list of chat formats, and the choice of the one that a tokenizer needs.

A new format is a module in `formats/` with a subclass of `ChatProtocol`, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .chat_protocol import ChatProtocol, ProtocolError
from .formats.command_format import CommandFormat
from .formats.deepseek_format import DeepSeekFormat
from .formats.fenced_format import FencedFormat
from .formats.gemma4_format import Gemma4Format
from .formats.glm_format import GlmFormat
from .formats.hermes_format import HermesFormat
from .formats.llama3_format import Llama3Format
from .formats.mistral_format import MistralFormat
from .prompt_texts import Prompts
from .tool_call import Call, MalformedCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMATS: tuple[type[ChatProtocol], ...] = (
    Gemma4Format,
    DeepSeekFormat,
    CommandFormat,
    MistralFormat,
    GlmFormat,
    HermesFormat,
    Llama3Format,
)
"""Formats in the order in which they are tried; `FencedFormat` serves if none of them matches."""

UNKNOWN = (
    "Tool calls are read as fenced blocks of Python, because neither the chat template nor the "
    "vocabulary shows a known format."
)


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
        sign = chat_format.sign(vocabulary, template)
        if sign:
            reason = f"Tool calls are read in the format {chat_format.family}, because {sign}."
            return chat_format(tokenizer, prompts, end_ids, reason)
    if "<|channel|>" in vocabulary and "<|call|>" in vocabulary:
        raise ProtocolError("Checkpoints in the Harmony format (gpt-oss) are not supported.")
    return FencedFormat(tokenizer, prompts, end_ids, UNKNOWN)


def parse_calls(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Call | MalformedCall]:
    """Return the tool calls in one turn of the model's text; see `ChatProtocol.parse_calls`."""
    return load_protocol(tokenizer).parse_calls(text)
