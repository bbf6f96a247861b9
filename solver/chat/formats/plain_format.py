"""Conversations without a tool: whatever a model writes, nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..chat_protocol import ChatProtocol
from ..prompt_texts import Prompts
from ..template_options import NO_OPTIONS, TemplateOptions
from ..tool_call import Call, MalformedCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainFormat(ChatProtocol):
    """Neither prompt nor template mentions a tool, and code is part of the text.

    For any checkpoint, if `SolverConfig.tool` is False.
    """

    family = "plain"
    native_tool = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        end_ids: Sequence[int] = (),
        reason: str = "",
        options: TemplateOptions = NO_OPTIONS,
    ) -> None:
        prompts = replace(prompts, request="", opening="")
        super().__init__(tokenizer, prompts, end_ids, reason, options)

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        return []

    def code_end(self, text: str) -> int | None:
        return None

    def system_message(self) -> str:
        return self.prompts.plain
