"""The chat format of Command checkpoints from R7B and A on."""

from __future__ import annotations

from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..readers.call_bodies import read_envelope
from ..tool_call import CallText

_OPENING, _CLOSING = r"<\|START_ACTION\|>", r"<\|END_ACTION\|>"


class CommandFormat(ChatProtocol):
    """Calls are a JSON list between `<|START_ACTION|>` and `<|END_ACTION|>`.

    Grammar:

        calls := "<|START_ACTION|>" body "<|END_ACTION|>"        `readers/call_bodies.py`
    """

    family = "command"
    call_mark = _OPENING

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        return "the chat template has <|START_ACTION|>" if "<|START_ACTION|>" in template else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        return read_envelope(text, start, _OPENING, _CLOSING)
