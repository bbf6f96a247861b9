"""The fallback format, for checkpoints whose own format of tool calls is not known."""

from __future__ import annotations

import re

from ..chat_protocol import ChatProtocol, Framing
from ..tool_call import Call, MalformedCall, checked_call


class FencedFormat(ChatProtocol):
    """A fenced block of Python at the end of a turn is a call; its output comes as a user turn.

    A block that a box follows is part of the answer and is not run.
    """

    family = "fenced"
    native_tool = False
    _code_block = re.compile(r"```(?:python|py)[ \t]*\n(.*?)(```|\Z)", re.DOTALL | re.IGNORECASE)

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        text = super().final_text(text)
        blocks = list(self._code_block.finditer(text))
        if not blocks or "\\boxed" in text[blocks[-1].end() :]:
            return []
        return [
            checked_call(block[1]) if block[2] else MalformedCall("the block is not closed")
            for block in blocks
        ]

    def final_text(self, text: str) -> str:
        return self._code_block.sub("", super().final_text(text))

    def _tool_framing(self) -> Framing:
        user = self._user
        opening, closing = "Output:\n```\n", "\n```"
        return Framing(user.before + opening, f"{closing}\n{opening}", closing + user.after)
