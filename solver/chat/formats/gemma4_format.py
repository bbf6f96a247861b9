"""The chat format of Gemma 4 checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..chat_protocol import ChatProtocol
from ..readers.quoted_calls import CALL_MARK, read_quoted_calls
from ..readers.thought_tags import open_thought
from ..template_framing import MARK, Framing
from ..tool_call import CallText


class Gemma4Format(ChatProtocol):
    """Control tokens enclose calls; results stand in the model's turn, thoughts in a channel."""

    family = "gemma4"
    pause_tokens = ("<|tool_response>",)
    turn_ends = ("<turn|>",)
    call_mark = CALL_MARK

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        shown = "<|tool_call>" in vocabulary and "<|tool_response>" in vocabulary
        return "the vocabulary has the token <|tool_call>" if shown else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        return read_quoted_calls(text, start)

    def _tool_framing(self, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
        # The frame is fixed, but only some versions of the template open a thought after it.
        frame = ('response:python{value:<|"|>', '<|"|>}<tool_response|>')
        call = {"type": "function", "function": {"name": "python", "arguments": {"code": "1"}}}
        messages = [
            *opening,
            {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", **call}]},
            {"role": "tool", "name": "python", "tool_call_id": "call_0", "content": MARK},
        ]
        opener = open_thought(self._render(messages).rpartition(MARK)[2])
        between = frame[1] + "<|tool_response>" + frame[0]
        return Framing(frame[0], between, frame[1] + opener)
