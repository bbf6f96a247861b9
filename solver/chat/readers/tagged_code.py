"""Code that stands between tags as it is, without quotes or escapes.

Grammar:

    tagged := [newline] code [newline] closings
    closings := the closing tags of the value, of the call and of its envelope, in this order; any
                of them may be missing, and other values may stand between the first two

The code may hold any tag. It ends at the first closings behind which nothing is left, or which are
complete, and in front of which the text is Python. If there are none, it ends at the first
complete closings in front of the next call, else at the first ones behind which nothing is left,
else at the first ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .python_code import is_python


@dataclass(frozen=True)
class TagSet:
    """The tags around code in one format, as patterns.

    Attributes:
        call: the beginning of a call up to its code; the group `name` is the tool's name.
        closings: closing tags of the value, of the call and of the envelope.
        other: another value, with its tags.
    """

    call: str
    closings: tuple[str, ...]
    other: str = r"(?!)"


@dataclass(frozen=True)
class TaggedCode:
    """Code between tags: `end` is the index behind the closings, `closed` False without any."""

    code: str
    end: int
    closed: bool


def read_tagged_code(text: str, start: int, tags: TagSet) -> TaggedCode:
    """Return the code that begins at `start`, behind its opening tag."""
    value, *rest = tags.closings
    chain = "".join(rf"(?:\s*(?P<t{i}>{tag}))?" for i, tag in enumerate(rest))
    others = rf"(?:\s*{tags.other})*"
    closings = re.compile(rf"(?:(?P<value>{value}){others})?{chain}")
    some = re.compile("|".join(tags.closings))
    nothing_left = re.compile(rf"\s*(?:\Z|{tags.call})")
    next_call = re.compile(tags.call).search(text, start)
    bound = next_call.start() if next_call else len(text)
    found: list[tuple[int, int, bool, bool]] = []  # start, end, complete, last
    position = start
    while tag := some.search(text, position):
        match = closings.match(text, tag.start())
        assert match is not None
        complete, last = (
            None not in match.groupdict().values(),
            bool(nothing_left.match(text, match.end())),
        )
        if (complete or last) and is_python(_code(text[start : tag.start()])):
            return TaggedCode(_code(text[start : tag.start()]), match.end(), True)
        if tag.start() < bound:
            found.append((tag.start(), match.end(), complete, last))
        position = tag.end()
    found.sort(key=lambda one: (not one[2], not one[3], one[0]))
    if found:
        return TaggedCode(_code(text[start : found[0][0]]), found[0][1], True)
    return TaggedCode(_code(text[start:bound]), bound, False)


def _code(text: str) -> str:
    text = text.removeprefix("\r").removeprefix("\n")
    return text.removesuffix("\n").removesuffix("\r")
