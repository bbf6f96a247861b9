"""The chat format of Llama 3.1 checkpoints and later ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..readers.call_bodies import FUNCTION, read_body, read_functions
from ..readers.keyword_calls import KEYWORD_CALL, read_keyword_calls
from ..readers.python_code import is_python
from ..tool_call import CallText, checked_call

_MARK = r"<\|python_tag\|>"
_NOTHING = r"(?!)"


class Llama3Format(ChatProtocol):
    """Code follows `<|python_tag|>`, to the end of the turn; other calls are JSON objects.

    Grammar:

        call := "<|python_tag|>" (body | keywords | code)        `readers/call_bodies.py`
        call := function | keywords                              `readers/keyword_calls.py`
        call := object                                           `readers/turn_reader.py`

    Code ends with the turn or at the last mark in front of which it is Python, else at the first.
    """

    family = "llama3"
    turn_ends = ("<|eom_id|>", "<|eot_id|>")
    call_mark = rf"{_MARK}|{FUNCTION}|(?:(?<=\n)|\A){KEYWORD_CALL}"

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        shown = "<|eom_id|>" in vocabulary and re.search(rf"{_MARK}|\bipython\b", template)
        return f"the chat template has {shown[0]}" if shown else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        mark = re.compile(_MARK).match(text, start)
        if mark is None and text.startswith("<", start):
            return read_functions(text, start, _NOTHING, _NOTHING)
        if mark is None:
            return read_keyword_calls(text, start)
        read = read_body(text, mark.end(), _MARK, _NOTHING)
        read = read or read_keyword_calls(text, mark.end())
        if read is not None:
            return CallText(read.end, read.calls)
        code = text[mark.end() :]
        while not is_python(code.strip()) and (cut := code.rfind("<|python_tag|>")) >= 0:
            code = code[:cut]
        if not is_python(code.strip()):
            code = text[mark.end() :].partition("<|python_tag|>")[0]
        return CallText(mark.end() + len(code), (checked_call(code),))
