"""The chat format of Qwen and Hermes checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import MARK, ChatProtocol, Framing
from ..readers.call_bodies import FUNCTION, read_body, read_functions
from ..readers.json_calls import NOT_JSON
from ..tool_call import CallText, MalformedCall

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class HermesFormat(ChatProtocol):
    """Calls are JSON or XML in `<tool_call>...</tool_call>`; results come in a new turn.

    Grammar:

        call := "<tool_call>" body "</tool_call>" | function     `readers/call_bodies.py`
    """

    family = "hermes"
    call_mark = rf"{OPENING}|{FUNCTION.replace('(', '(?:').replace('(?:?:', '(?:')}"

    @classmethod
    def matches(cls, vocabulary: Mapping[str, int], template: str) -> bool:
        return "<tool_call>" in template

    def _read_call(self, text: str, start: int) -> CallText | None:
        if not text.startswith(OPENING, start):
            return read_functions(text, start, OPENING, CLOSING)
        at = start + len(OPENING)
        read = read_body(text, at, OPENING, CLOSING)
        if read is not None:
            return read
        end = re.compile(f"{CLOSING}|(?={OPENING})").search(text, at)
        if end is not None and end[0]:
            return CallText(end.end(), (MalformedCall(NOT_JSON),))
        if not text[at:].lstrip().startswith(("{", "[", '"', "<function", "```")):
            return None
        return CallText(end.start() if end else len(text), (MalformedCall(NOT_JSON),), False)

    def _tool_framing(self) -> Framing:
        calls = [
            {
                "id": f"call{n:05d}",
                "type": "function",
                "function": {"name": "python", "arguments": {"code": "1"}},
            }
            for n in range(2)
        ]
        messages = [
            *self._messages("1"),
            {"role": "assistant", "content": "", "tool_calls": calls},
            *(
                {
                    "role": "tool",
                    "name": "python",
                    "tool_call_id": f"call{n:05d}",
                    "content": MARK + suffix,
                }
                for n, suffix in enumerate("AB")
            ),
        ]
        text = self._render(messages)
        return self._framing(text, "</tool_call>", [MARK + "A", MARK + "B"])
