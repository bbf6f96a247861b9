"""Reads answers of gpt-oss: messages whose channel and recipient say what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from ...chat.harmony.harmony_vocabulary import Control
from ...chat.harmony.message_header import MessageHeader, read_header
from .function_calls import FunctionCall, ToolTypes
from .reply_parts import ReplyParts, held_back

MARK = "\0"
"""Stands in front of each control token, so that its text in an answer is only text."""

ENDS = tuple(
    f"{MARK}{kind}"
    for kind in (Control.END, Control.CALL, Control.RETURN, Control.START, Control.STOP)
)
TOKENS = tuple(str(kind) for kind in Control if kind is not Control.OTHER)
"""Texts of the control tokens."""

_ENDS = re.compile("|".join(re.escape(end) for end in ENDS))
_PART = re.compile(f"{MARK}({re.escape(Control.CHANNEL)}|{re.escape(Control.CONSTRAIN)})")


def marked_text(
    ids: Sequence[int], control: Mapping[int, str], decode: Callable[[Sequence[int]], str]
) -> str:
    """Return the text of tokens with `MARK` in front of each control token.

    Args:
        ids: the tokens.
        control: texts of the control tokens.
        decode: returns the text of other tokens.
    """
    text, start = "", 0
    for at, token in enumerate(ids):
        if token in control:
            text += decode(ids[start:at]).replace(MARK, "") + MARK + control[token]
            start = at + 1
    return text + decode(ids[start:]).replace(MARK, "")


class HarmonyReply:
    """Splits the messages of a text that grows into thoughts, content and calls.

    The text is that of `marked_text`.

    Messages in the channel `analysis` are thoughts, those to a tool are calls, and all others are
    content. A call whose body is not a JSON object has it as the tool's only text.

    Args:
        types: which arguments are text; None if the request has no tools, so that messages to tools
            are content.

    Attributes:
        all: all parts so far.
    """

    def __init__(self, types: ToolTypes | None) -> None:
        self.all = ReplyParts()
        self._types = types
        self._text = ""  # not yet given out
        self._header: MessageHeader | None = None  # None while in a header

    def add(self, piece: str, last: bool = False) -> ReplyParts:
        """Add text and return the parts that are certain now; see `TaggedReply.add`."""
        self._text += piece
        new = ReplyParts()
        while self._body(new, last) if self._header else self._read_header(new, last):
            pass
        self.all.add(new)
        return new

    def _read_header(self, new: ReplyParts, last: bool) -> bool:
        """Take a header; text without one at the end of the answer is content."""
        head, found, rest = self._text.partition(f"{MARK}{Control.MESSAGE}")
        if not found:
            if last and not _PART.search(head) and (text := _ENDS.sub("", head)).strip():
                new.content += text.replace(MARK, "")
            return False
        head = _ENDS.split(head)[-1]
        role, *parts = _PART.split(head)
        kinds = list(zip(parts[::2], parts[1::2], strict=True))
        channels = [text for kind, text in kinds if kind == Control.CHANNEL]
        types = [text for kind, text in kinds if kind == Control.CONSTRAIN]
        self._header, self._text = read_header(role or "assistant", channels, types), rest
        visible = self._visible()
        if visible and getattr(self.all, visible) + getattr(new, visible):
            self._give(new, visible, "\n\n")  # between two messages of one kind
        return True

    def _visible(self) -> str:
        """Return the part that the message's text belongs to; "" if it is a call."""
        assert self._header is not None
        if self._types is not None and self._header.tool is not None:
            return ""
        thought = self._header.channel == "analysis" and self._header.tool is None
        return "reasoning" if thought else "content"

    def _body(self, new: ReplyParts, last: bool) -> bool:
        """Give the body out up to its end; a call is read once it is complete."""
        assert self._header is not None
        found, visible = _ENDS.search(self._text), self._visible()
        if found is None:
            if not visible and not last:
                return False
            keep = 0 if last else held_back(self._text, ENDS)
            text = self._text[: len(self._text) - keep]
            self._text = self._text[len(text) :]
            self._give(new, visible, text)
            return False
        self._give(new, visible, self._text[: found.start()])
        self._text = self._text[found.end() :]
        self._header = None
        return True

    def _give(self, new: ReplyParts, visible: str, text: str) -> None:
        text = text.replace(MARK, "")
        if visible:
            setattr(new, visible, getattr(new, visible) + text)
            return
        assert self._header is not None
        assert self._header.tool is not None
        assert self._types is not None
        name = self._header.tool.removeprefix("functions.")
        try:
            arguments = json.loads(text or "{}")
        except (ValueError, RecursionError):
            arguments = text
        if not isinstance(arguments, dict):
            arguments = {self._types.only_text(name): text}
        new.calls.append(FunctionCall(name, json.dumps(arguments, ensure_ascii=False)))
