"""The chat format of DeepSeek checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..readers.call_bodies import close_envelope, read_body
from ..readers.code_fences import OPENING, read_block
from ..readers.json_calls import NOT_JSON, read_json_calls
from ..tool_call import Call, CallText, MalformedCall

_BEGIN, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_ALL_BEGIN, _ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_HEAD = re.compile(rf"\s*{_BEGIN}\s*(?:function\s*{_SEP})?\s*(?P<name>[\w.-]+)\s*(?:{_SEP})?\s*")


class DeepSeekFormat(ChatProtocol):
    """Calls stand between tokens of their own, the arguments as JSON, in a fence or bare.

    Grammar, with short names for the tokens:

        calls     := CALLS_BEGIN (call+ | body) CALLS_END        body: `readers/call_bodies.py`
        call      := CALL_BEGIN head arguments CALL_END
        head      := "function" SEP NAME | NAME SEP
        arguments := JSON | a fenced block of JSON or of Python
    """

    family = "deepseek"
    call_mark = f"{_ALL_BEGIN}|{_BEGIN}"

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        return f"the chat template has {_ALL_BEGIN}" if _ALL_BEGIN in template else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        at = start + (len(_ALL_BEGIN) if text.startswith(_ALL_BEGIN, start) else 0)
        calls: list[Call | MalformedCall] = []
        closed = True
        while head := _HEAD.match(text, at):
            read = self._arguments(text, head)
            calls += read.calls
            at, closed = read.end, read.closed
        if calls:
            end = re.compile(rf"\s*{_ALL_END}").match(text, at)
            return CallText(end.end() if end else at, tuple(calls), closed or end is not None)
        if at > start:
            body = read_body(text, at, _ALL_BEGIN, _ALL_END)
            if body is not None:
                return body
        closing = re.compile(f"{_ALL_END}|{_END}").search(text, at)
        return CallText(closing.end(), (MalformedCall(NOT_JSON),)) if closing else None

    def _arguments(self, text: str, head: re.Match[str]) -> CallText:
        """Read the arguments behind a call's head, and the call's end."""
        at = head.end()
        opening = OPENING.match(text, at)
        block = read_block(text, opening) if opening else None
        read = None
        if block is not None and block.language == "python":
            read = CallText(block.stop, (Call(block.content),), block.closed)
        else:
            inside = opening.end() if opening else at
            read = read_json_calls(
                text, inside, rf"`{{3,}}|{_END}|{_ALL_END}|{_BEGIN}", head["name"]
            )
        if read is not None:
            fence = re.compile(r"\s*`{3,}").match(text, read.end)
            return close_envelope(
                text, CallText(fence.end() if fence else read.end, read.calls), _END
            )
        end = re.compile(rf"{_END}|(?={_BEGIN}|{_ALL_END})|\Z").search(text, at)
        assert end is not None
        return CallText(end.end(), (MalformedCall(NOT_JSON),), end.end() < len(text))
