"""Code that stands between tags as it is, without quotes or escapes.

Grammar:

    tagged := [newline] code [newline] closings     the newlines only if the format has them
    closings := the closing tags of the value, of the call and of its envelope, in this order; any
                of them may be missing, and other values may stand between the first two

The code may hold any tag. It ends at the first closings, if possible in a line of their own, in
front of which it is Python and behind which nothing is left or another call begins; else at the
first complete closings in front of which it is Python; else at the first complete ones in front of
the next call, the first behind which nothing is left, or the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .python_code import horizon, is_python


@dataclass(frozen=True)
class TagSet:
    """The tags around code in one format, as patterns.

    Attributes:
        call: the beginning of a call up to its code; the group `name` is the tool's name.
        closings: closing tags of the value, of the call and of the envelope.
        other: another value, with its tags.
        more: the opening of another code in the same call.
        padded: True if a line break behind the opening and in front of the closing are no code.
    """

    call: str
    closings: tuple[str, ...]
    other: str = r"(?!)"
    more: str = r"(?!)"
    padded: bool = True


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
    nothing_left = re.compile(rf"\s*(?:\Z|{tags.call}|{tags.more})")
    call = re.compile(tags.call)
    next_call, limit = call.search(text, start), horizon(text, start, call)
    bound = next_call.start() if next_call else len(text)
    if more := re.compile(rf"{value}\s*{tags.more}").search(text, start, bound):
        bound = more.start() + 1
    found: list[tuple[tuple[bool, ...], bool, int, int]] = []  # best first when sorted
    position = start
    while tag := some.search(text, position, limit):
        match = closings.match(text, tag.start())
        assert match is not None
        last = nothing_left.match(text, match.end()) is not None
        complete = None not in match.groupdict().values()
        sure = (last or complete) and is_python(_code(text[start : tag.start()], tags))
        if sure or tag.start() < bound:
            inline = tags.padded and not text.endswith("\n", start, tag.start())
            rank = (not (sure and last), not sure, not complete, not last)
            found.append((rank, sure and inline, tag.start(), match.end()))
        position = tag.end()
    if not found:
        return TaggedCode(_code(text[start:bound], tags), bound, False)
    *_, stop, end = min(found)
    return TaggedCode(_code(text[start:stop], tags), end, True)


def _code(text: str, tags: TagSet) -> str:
    if not tags.padded:
        return text
    text = text.removeprefix("\r").removeprefix("\n")
    return text.removesuffix("\n").removesuffix("\r")
