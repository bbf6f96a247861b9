"""Finds the boxes of a text, and boxes that are parts of one answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BOX = re.compile(
    r"\\(?:(?:boxed|Boxed|fbox|framebox|doublebox|shadowbox|ovalbox|Ovalbox|tcbox|bbox)"
    r"|fcolorbox\s*\{[^{}]{0,40}\}\s*\{[^{}]{0,40}\}|colorbox\s*\{[^{}]{0,40}\}|enclose\s*\{[^{}]{0,40}box[^{}]{0,40}\})"
    r"(?![a-zA-Z])\*?(?:\s*\[[^\[\]{}]{0,80}\]){0,3}\s*\{"
)
_FULL_WIDTH = str.maketrans("｛｝＼", "{}\\")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_SENTENCE_END = re.compile(r"[.!?](?=[\s$*)\\]|$)|[。！？\n]")
_GLUE = re.compile(
    r"(?:[\s$*~,;&]|\\[\[\]()\\,;:! ]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b"
    r"|(?<!\w)(?:\(?[a-z0-9]\)|\d\.|-)(?=\s))*"
)
_CONNECTIVE = re.compile(r"[,;&]|\b(?:and|or)\b|[a-z0-9]\)|\d\.|-")


@dataclass(frozen=True)
class Box:
    """The content of a box, and where the box begins and ends in the text."""

    content: str
    start: int
    end: int


def find_boxes(text: str) -> list[Box]:
    """Return the outermost closed boxes of a text, in order.

    A box is `\\boxed`, `\\fbox` or another command that frames, with optional arguments.
    """
    text = text.translate(_FULL_WIDTH)
    closing = _closing(text)
    found, position = [], 0
    while match := _BOX.search(text, position):
        position = match.end()
        if (end := closing.get(match.end() - 1)) is not None:
            found.append(Box(text[match.end() : end], match.start(), end + 1))
            position = end + 1
    return found


def has_unclosed_box(text: str) -> bool:
    """Return True if a box begins in the text and does not end."""
    closing = _closing(text)
    return any(match.end() - 1 not in closing for match in _BOX.finditer(text))


def _closing(text: str) -> dict[int, int]:
    """Map the position of each opening brace to its closing one; escaped braces do not count."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def rivals(
    text: str, boxes: Sequence[Box], index: int, value_of: Callable[[str], int | None]
) -> tuple[Box, Box] | None:
    """Return two boxes that are parts of one answer, neither of them the answer, or None.

    Two boxes with different values are parts in two cases. They are neighbors in a list: nothing
    stands between but a comma, "and", "or", a label such as "(b)", or space within the line. Or
    they stand in one sentence, which goes on after its last box with another number, as in
    "with a = [3] and then b = [4] the sum is 7". In any other case the last box corrects or
    concludes what stands before it.

    Args:
        text: text of the boxes.
        boxes: all boxes of the text.
        index: the box whose value would be the answer.
        value_of: integer that a content denotes, or None.
    """
    box = boxes[index]
    value = value_of(box.content)
    for first, second in ((index - 1, index), (index, index + 1)):
        if first < 0 or second >= len(boxes):
            continue
        between = text[boxes[first].end : boxes[second].start]
        other = boxes[first if second == index else second]
        listed = _GLUE.fullmatch(between) and ("\n" not in between or _CONNECTIVE.search(between))
        if listed and re.search(r"\d", other.content) and value_of(other.content) != value:
            return boxes[first], boxes[second]
    tail = text[box.end : boxes[index + 1].start if index + 1 < len(boxes) else len(text)]
    end = _SENTENCE_END.search(tail)
    if not re.search(r"\d", tail[: end.start()] if end else tail):
        return None
    for earlier in range(index - 1, -1, -1):
        if _SENTENCE_END.search(text[boxes[earlier].end : boxes[earlier + 1].start]):
            break
        if value_of(boxes[earlier].content) not in (None, value):
            return boxes[earlier], box
    return None
