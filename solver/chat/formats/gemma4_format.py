"""The chat format of Gemma 4 checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import MARK, ChatProtocol, Framing
from ..tool_call import Call, MalformedCall, checked_call


class Gemma4Format(ChatProtocol):
    """Control tokens enclose calls; results stand in the model's turn, thoughts in a channel."""

    family = "gemma4"
    pause_tokens = ("<|tool_response>",)
    turn_ends = ("<turn|>",)
    thought = ("<|channel>", "<channel|>")
    _call_block = re.compile(r"<\|tool_call>(.*?)(<tool_call\|>|(?=<\|tool_call>)|\Z)", re.DOTALL)
    _named_call = re.compile(r"\s*call:(?P<name>[\w.:-]+)\s*\{(?P<body>.*)\}\s*", re.DOTALL)
    _code_argument = re.compile(r'\s*code\s*:\s*<\|"\|>(.*)<\|"\|>\s*', re.DOTALL)

    @classmethod
    def matches(cls, vocabulary: Mapping[str, int], template: str) -> bool:
        return "<|tool_call>" in vocabulary and "<|tool_response>" in vocabulary

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        return [
            self._parse_call(match[1], bool(match[2])) for match in self._call_block.finditer(text)
        ]

    def _parse_call(self, body: str, closed: bool) -> Call | MalformedCall:
        if not closed:
            return MalformedCall("the call is not closed")
        call = self._named_call.fullmatch(body)
        if call is None:
            return MalformedCall('the call is not of the form call:python{code:<|"|>...<|"|>}')
        if call["name"] != "python":
            return MalformedCall(f"there is no tool {call['name'][:40]}, only python")
        code = self._code_argument.fullmatch(call["body"])
        if code is None:
            return MalformedCall("python takes one string argument named code")
        return checked_call(code[1])

    def final_text(self, text: str) -> str:
        text = self._call_block.sub("", super().final_text(text))
        for token in (*self.pause_tokens, "<turn|>", "<eos>"):
            text = text.replace(token, "")
        return text

    def _tool_framing(self) -> Framing:
        # The frame is fixed, but only some versions of the template open a thought after it.
        frame = ('response:python{value:<|"|>', '<|"|>}<tool_response|>')
        call = {"type": "function", "function": {"name": "python", "arguments": {"code": "1"}}}
        messages = [
            *self._messages("1"),
            {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", **call}]},
            {"role": "tool", "name": "python", "tool_call_id": "call_0", "content": MARK},
        ]
        opener = self._open_thought(self._render(messages).rpartition(MARK)[2])
        between = frame[1] + "<|tool_response>" + frame[0]
        return Framing(frame[0], between, frame[1] + opener)
