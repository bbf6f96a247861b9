"""The list of chat formats, and the choice of the one that a tokenizer needs.

A new format is a module in `formats/` with a subclass of `ChatProtocol`, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .formats.plain_format import PlainFormat
from .harmony.harmony_format import HarmonyFormat
from .harmony.plain_harmony_format import PlainHarmonyFormat
from .prompt_texts import STANDARD, PromptChanges, Prompts
from .readers.thought_tags import OPENING
from .template_options import NO_OPTIONS, TemplateOptions
from .tool_call import Call, MalformedCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMATS: tuple[type[ChatProtocol], ...] = (
    Gemma4Format,
    HarmonyFormat,
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
    prompts: Prompts | PromptChanges | None = None,
    end_ids: Sequence[int] = (),
    options: TemplateOptions = NO_OPTIONS,
) -> ChatProtocol:
    """Return the chat protocol of a tokenizer's checkpoint family.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompts: all texts of the prompt, or those that replace the format's; None takes these.
        end_ids: end tokens of the checkpoint, besides the tokenizer's own one.
        options: options of the prompt that only some chat templates have.

    Raises:
        ProtocolError: if there is no chat template or it fails, if a token that the format needs
            is missing, or if the chat template does not heed one of the options.
    """
    prompts = prompts or PromptChanges()
    try:
        template: str = tokenizer.get_chat_template(tools=[Prompts().python_tool()])
    except (ValueError, AttributeError) as error:
        raise ProtocolError(
            "The tokenizer has no chat template; use an instruction-tuned checkpoint."
        ) from error
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    thinks = knows_thoughts(vocabulary, template)

    def bind(chat_format: type[ChatProtocol], reason: str) -> ChatProtocol:
        default_set = STANDARD if thinks else chat_format.prompt_set
        reason = f"{reason} {prompts.described(default_set)}"
        if options.reasoning_effort is not None and not chat_format.efforts:
            raise ProtocolError(
                f"Models of the format {chat_format.family} have no reasoning efforts; leave "
                "reasoning_effort out, which is for gpt-oss."
            )
        return chat_format(tokenizer, prompts.over(default_set), end_ids, reason, options)

    for chat_format in FORMATS:
        sign = chat_format.sign(vocabulary, template)
        if sign:
            said = f"Tool calls are read in the format {chat_format.family}, because {sign}."
            return bind(chat_format, said)
    return bind(FencedFormat, UNKNOWN)


def without_tool(protocol: ChatProtocol, reason: str) -> ChatProtocol:
    """Return the protocol of the same checkpoint for conversations without a tool.

    Args:
        protocol: protocol with the tool.
        reason: a sentence that says why there is no tool.
    """
    plain = PlainHarmonyFormat if isinstance(protocol, HarmonyFormat) else PlainFormat
    ends = sorted(protocol.end_ids)
    return plain(protocol.tokenizer, protocol.prompts, ends, reason, protocol.options)


def knows_thoughts(vocabulary: Mapping[str, int], template: str) -> bool:
    """Return whether a checkpoint's chat template or vocabulary has a tag that opens a thought."""
    return bool(OPENING.search(template)) or any(map(OPENING.fullmatch, vocabulary))


def parse_calls(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Call | MalformedCall]:
    """Return the tool calls in one turn of the model's text; see `ChatProtocol.parse_calls`."""
    return load_protocol(tokenizer).parse_calls(text)
