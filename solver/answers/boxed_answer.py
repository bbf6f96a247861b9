"""Finds the boxed integer answer in a model's final text, and a bare one after a request."""

from __future__ import annotations

import re
from functools import cache

from .box_content import integer as integer
from .box_search import find_boxes, rivals

MIN_ANSWER, MAX_ANSWER = 0, 99_999
MAX_BOXES = 100
"""Number of boxes, counted from the end of a text, that are read."""

_BARE = re.compile(r"(?:[\s\d+,.'’_*`$\"~()٬−-]|\{,\}|\\[,;:! ()\[\]])+")
_ARITHMETIC = re.compile(r"\d[^\d]*[-+*−(][^\d]*\d")


def boxes(text: str) -> list[str]:
    """Return the contents of the outermost `\\boxed{...}`, `\\fbox{...}` and their like, in order.

    Unclosed boxes are left out.
    """
    return [box.content for box in find_boxes(text)]


def answer(text: str, low: int = MIN_ANSWER, high: int = MAX_ANSWER) -> int | None:
    """Return the integer in the last box of a text that holds one in the range, or None.

    It is None too if that box is only a part of the answer; `rivals` states the rule.

    Args:
        text: final text of a model, without thoughts and tool calls.
        low, high: range of answers, both included.
    """
    found = find_boxes(text)[-MAX_BOXES:]
    value_of = cache(integer)
    for index in range(len(found) - 1, -1, -1):
        value = value_of(found[index].content)
        if value is not None and low <= value <= high:
            return None if rivals(text, found, index, value_of) else value
    return None


def bare_integer(text: str) -> int | None:
    """Return the integer that is all of a text, or None.

    It may be grouped, emphasized, set as a formula or end with a period. A text with any word,
    relation or arithmetic is not a bare integer.

    Args:
        text: final text of a model that was asked for nothing but an integer.
    """
    plain = "".join(str(int(char)) if char.isdecimal() else char for char in text.strip())
    about = plain.startswith("~")
    if about or len(plain) > 100 or not _BARE.fullmatch(plain) or _ARITHMETIC.search(plain):
        return None
    return integer(plain)
