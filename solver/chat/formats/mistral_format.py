"""The chat format of Mistral checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..readers.json_calls import NOT_JSON, read_json_calls
from ..tool_call import Call, CallText, MalformedCall

_MARK = r"\[TOOL_CALLS\]"
_HEAD = re.compile(
    rf"(?:{_MARK})?\s*(?P<name>[\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\]\s*)?(?=\{{)"
)


class MistralFormat(ChatProtocol):
    """Calls follow `[TOOL_CALLS]`; results come in `[TOOL_RESULTS]`.

    Grammar:

        calls := "[TOOL_CALLS]" JSON                             `readers/json_calls.py`
        calls := ("[TOOL_CALLS]" NAME ["[CALL_ID]" ID] ["[ARGS]"] arguments)+
    """

    family = "mistral"
    call_mark = _MARK

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        return "the chat template has [TOOL_CALLS]" if "[TOOL_CALLS]" in template else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        at = start
        calls: list[Call | MalformedCall] = []
        while head := _HEAD.match(text, at):
            if calls and not text.startswith("[TOOL_CALLS]", at):
                break
            read = read_json_calls(text, head.end(), _MARK, head["name"])
            if read is None:
                break
            calls += read.calls
            at = read.end
        if calls:
            return CallText(at, tuple(calls))
        behind = start + len("[TOOL_CALLS]")
        read = read_json_calls(text, behind, _MARK)
        if read is not None:
            return read
        if not re.compile(r"\s*[\[{\w]").match(text, behind):
            return None
        following = re.compile(rf"(?={_MARK})|\Z").search(text, behind)
        assert following is not None
        return CallText(following.start(), (MalformedCall(NOT_JSON),))
