"""The chat format of GLM checkpoints from 4.5 on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..chat_protocol import ChatProtocol
from ..readers.call_bodies import read_envelope
from ..readers.tagged_code import TagSet, read_tagged_code
from ..tool_call import CallText, named_call

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_KEY = r"\s*<arg_key>\s*{}\s*</arg_key>\s*<arg_value>"
_OTHER = _KEY.format(r"(?!code\b)\w+") + r"(?:(?!</?arg_).)*</arg_value>"
_CALL = rf"{_OPENING}\s*[\w.:-]+(?:{_OTHER})*{_KEY.format('code')}"
_HEAD = re.compile(rf"{_OPENING}\s*(?P<name>[\w.:-]+)(?:{_OTHER})*{_KEY.format('code')}", re.DOTALL)
_TAGS = TagSet(_CALL, (r"</arg_value>", _CLOSING), _OTHER, padded=False)


class GlmFormat(ChatProtocol):
    """Calls name their arguments between tags; the model waits at `<|observation|>`.

    Grammar:

        call     := "<tool_call>" NAME argument* "</tool_call>"
        argument := "<arg_key>" KEY "</arg_key>" "<arg_value>" text "</arg_value>"
                                                             `readers/tagged_code.py`
        call     := "<tool_call>" body "</tool_call>"        `readers/call_bodies.py`
    """

    family = "glm"
    pause_tokens = ("<|observation|>",)
    turn_ends = ("<|user|>",)
    call_mark = _OPENING

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        shown = "<arg_key>" in template and "<|observation|>" in vocabulary
        return "the chat template has <arg_key>" if shown else ""

    def _read_call(self, text: str, start: int) -> CallText | None:
        head = _HEAD.match(text, start)
        if head is None:
            return read_envelope(text, start, _OPENING, _CLOSING)
        tagged = read_tagged_code(text, head.end(), _TAGS)
        call = named_call(head["name"], {"code": tagged.code})
        return CallText(tagged.end, (call,), tagged.closed)
