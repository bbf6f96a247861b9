"""Reads answers of families whose thoughts and calls stand between tags."""

from __future__ import annotations

import re
from contextlib import suppress

from ...chat.readers.thought_tags import (
    CLOSING,
    FINAL_OPENING,
    OPENING,
    PAIRS,
    WORDS,
    closing_of,
)
from .function_calls import CallForm, ToolTypes
from .reply_parts import ReplyParts, held_back

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
_CHANNEL_NAME = re.compile(r"<\|channel>\s*[\w-]*\n")
_CHANNEL_START = re.compile(r"<\|channel>\s*[\w-]*\Z")

WORD_OPENINGS = tuple(f"<{word}>" for word in WORDS)
WORD_CLOSINGS = tuple(f"</{word}>" for word in WORDS)
CONTROL_OPENINGS = (CHANNEL, *(opening for opening, _ in PAIRS))

START_TAGS = tuple(tag.lower() for tag in (*WORD_OPENINGS, *CONTROL_OPENINGS))

TAGS = (
    *(CHANNEL, CHANNEL_END),
    *WORD_OPENINGS,
    *WORD_CLOSINGS,
    *(tag for pair in PAIRS for tag in pair),
)
"""Texts of the tags of thoughts, some of which are control tokens."""


class TaggedReply:
    """Splits a text that grows into thoughts, content and calls.

    A thought begins where the model begins to write, or behind another one; where a control token
    opens it, anywhere. What looks like a call but cannot be read is content.

    Args:
        form: how the family writes calls; None reads none.
        types: which arguments are text.
        opener: the opening of a thought that the prompt has left open, or "".

    Attributes:
        all: all parts so far.
    """

    def __init__(
        self, form: CallForm | None, types: ToolTypes | None = None, opener: str = ""
    ) -> None:
        self.all = ReplyParts()
        self._form, self._types = form, types or ToolTypes()
        self._text = ""  # not yet given out
        self._state = self._blank_start
        self._thoughts = 0
        self._closing = CLOSING
        if opener:
            self._open(opener)

    def add(self, piece: str, last: bool = False) -> ReplyParts:
        """Add text and return the parts that are certain now.

        Args:
            piece: the text.
            last: True if no more will follow, so that all parts are certain.
        """
        self._text += piece
        new = ReplyParts()
        while self._state(new, last):
            pass
        self.all.add(new)
        return new

    # Each state takes what it can from the text, and returns True if another one is to go on.

    def _blank_start(self, new: ReplyParts, last: bool) -> bool:
        """Begin with a thought or with content; blanks around thoughts are dropped."""
        text = self._text.lstrip()
        if not last and _may_open(text):
            return False
        found = OPENING.match(text) or FINAL_OPENING.match(text)
        if found:
            self._text = text
            return self._take_opening(found[0])
        if self._thoughts:
            self._text = text
        self._state = self._content
        return bool(self._text)

    def _take_opening(self, opening: str) -> bool:
        """Go on behind the opening at the start of the text."""
        if FINAL_OPENING.match(self._text):
            name = _CHANNEL_NAME.match(self._text) or FINAL_OPENING.match(self._text)
            assert name is not None
            self._text, self._state = self._text[name.end() :], self._content
            return True
        name = _CHANNEL_NAME.match(self._text) if opening.startswith(CHANNEL) else None
        self._text = self._text[name.end() if name else len(opening) :]
        self._open(opening)
        return True

    def _open(self, opening: str) -> None:
        first = OPENING.match(opening)
        self._closing = closing_of(first[0]) if first else CLOSING
        self._state = self._thought
        self._thoughts += 1

    def _thought(self, new: ReplyParts, last: bool) -> bool:
        """Give the thought out up to its closing."""
        if not self.all.reasoning and not new.reasoning:
            self._text = self._text.lstrip("\n")
        found = self._closing.search(self._text)
        if found is None:
            closings = (CHANNEL_END, *WORD_CLOSINGS, *(closing for _, closing in PAIRS))
            keep = 0 if last else held_back(self._text, closings)
            new.reasoning += self._text[: len(self._text) - keep]
            self._text = self._text[len(self._text) - keep :]
            return False
        new.reasoning += self._text[: found.start()]
        self._text, self._state = self._text[found.end() :], self._blank_start
        return True

    def _content(self, new: ReplyParts, last: bool) -> bool:
        """Give the content out up to a call, or to a thought that a control token opens."""
        calls = self._form.marks if self._form is not None else ()
        marks = (*calls, *CONTROL_OPENINGS, CHANNEL_END)
        if self._form is not None and self._form.alone and not (self.all.content or new.content):
            start = self._text.lstrip()[:1]
            if start == "{" or not (start or last):
                self._state = self._call
                return bool(self._text)
        places = [(at, mark) for mark in marks if (at := self._text.find(mark)) >= 0]
        if not places:
            keep = 0 if last else held_back(self._text, marks)
            new.content += self._text[: len(self._text) - keep]
            self._text = self._text[len(self._text) - keep :]
            return False
        at, mark = min(places)
        new.content += self._text[:at]
        self._text = self._text[at:]
        if mark == CHANNEL and not last and _may_open(self._text):
            return False
        if mark in calls:
            self._state = self._call
        elif mark == CHANNEL_END:  # ends a channel of content
            self._text = self._text[len(CHANNEL_END) :]
        else:
            found = OPENING.match(self._text) or FINAL_OPENING.match(self._text)
            assert found is not None
            self._take_opening(found[0])
        return True

    def _call(self, new: ReplyParts, last: bool) -> bool:
        """Read all that is left as calls once it is complete."""
        if not last or not self._text:
            return False
        assert self._form is not None
        with suppress(ValueError, RecursionError):
            new.calls += self._form.read(self._text, self._types)
        if not new.calls:
            new.content += self._text
        self._text = ""
        return False


def _may_open(text: str) -> bool:
    """Return True if more text must show whether this begins with the opening of a thought."""
    if len(text) < 2 * len(CHANNEL) + 16 and _CHANNEL_START.match(text):
        return True
    return any(tag.startswith(text.lower()) and tag != text for tag in START_TAGS)
