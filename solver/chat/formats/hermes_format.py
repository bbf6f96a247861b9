"""The chat format of Qwen and Hermes checkpoints, and of others with calls between such tags."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..prompt_texts import PROGRAM_FIRST
from ..readers.call_bodies import FUNCTION, read_envelope, read_functions
from ..tool_call import CallText

_OPENING = r"(?:<(?:\w+:)?tool_call>|<\|tool_call\|>|<TOOLCALL>)"
_CLOSING = r"(?:</(?:\w+:)?tool_call>|<\|/tool_call\|>|</TOOLCALL>)"


class HermesFormat(ChatProtocol):
    """Calls are JSON or XML in `<tool_call>...</tool_call>`; results come in a new turn.

    Grammar, with the tags of Qwen, Seed (`<seed:tool_call>`), MiniMax, Phi (`<|tool_call|>`) or
    Nemotron (`<TOOLCALL>`):

        call := "<tool_call>" body "</tool_call>" | function     `readers/call_bodies.py`
    """

    family = "hermes"
    prompt_set = PROGRAM_FIRST
    call_mark = rf"{_OPENING}|{FUNCTION}"

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        shown = re.search(rf"{_OPENING}|<function=", template)
        return f"the chat template has {shown[0]}" if shown else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        if re.compile(_OPENING).match(text, start):
            return read_envelope(text, start, _OPENING, _CLOSING)
        return read_functions(text, start, _OPENING, _CLOSING)
