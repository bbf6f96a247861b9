"""Conversations of gpt-oss without a tool: whatever the model writes, nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..prompt_texts import Prompts
from ..template_options import NO_OPTIONS, TemplateOptions
from ..turn_contents import EarlyStop, TurnContents
from .harmony_format import HarmonyFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainHarmonyFormat(HarmonyFormat):
    """Neither prompt nor template mentions a tool, and code is part of the text."""

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

    def system_message(self) -> str:
        return self.prompts.plain

    def read_turn(self, opener: str, tokens: Sequence[int]) -> TurnContents:
        return replace(super().read_turn(opener, tokens), calls=())

    def early_stop(self, opener: str, tokens: Sequence[int], new: int) -> EarlyStop | None:
        return None
