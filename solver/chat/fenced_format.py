"""Checkpoints whose tool-call format is not known here."""

from __future__ import annotations

import re

from .chat_protocol import Framing, Protocol
from .tool_call import Call, MalformedCall, checked


class Fenced(Protocol):
    """Chat models without a known call format: a ```python block that ends the turn is a call.

    A block followed by a box is part of the answer and is not run. Results come as a user turn.
    """

    family = "fenced"
    native_tool = False
    _block = re.compile(r"```(?:python|py)[ \t]*\n(.*?)(```|\Z)", re.DOTALL | re.IGNORECASE)

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        text = super().final_text(text)
        blocks = list(self._block.finditer(text))
        if not blocks or "\\boxed" in text[blocks[-1].end() :]:
            return []
        return [
            checked(block[1]) if block[2] else MalformedCall("the block is not closed")
            for block in blocks
        ]

    def final_text(self, text: str) -> str:
        return self._block.sub("", super().final_text(text))

    def _tool_framing(self) -> Framing:
        user = self._user
        opening, closing = "Output:\n```\n", "\n```"
        return Framing(user.before + opening, f"{closing}\n{opening}", closing + user.after)
