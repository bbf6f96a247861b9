"""Says in a sentence why a final text has no valid answer."""

from __future__ import annotations

import re
from functools import cache

from .box_content import integer, read_integer
from .box_search import find_boxes, has_unclosed_box, rivals
from .boxed_answer import MAX_BOXES, answer
from .not_exact_error import NotExactError

_MAX_QUOTE = 80
_INTEGER = re.compile(r"(?<![\w.,/^\\])[-−]?\d+(?:,\d{3})*(?![\w/^]|[.,]\d)")
_SENTENCE = re.compile(r"(?<=[.!?。])\s+|\n+")


def explain_no_answer(text: str, low: int, high: int) -> str:
    """Return a sentence that tells why a text has no valid answer, or "" if it has one.

    Args:
        text: final text of a model, without thoughts and tool calls.
        low, high: range of answers, both included.
    """
    if answer(text, low, high) is not None:
        return ""
    found = find_boxes(text)[-MAX_BOXES:]
    if not found:
        return _without_box(text)
    value_of = cache(integer)
    for index in range(len(found) - 1, -1, -1):
        value = value_of(found[index].content)
        if value is not None and low <= value <= high:
            pair = rivals(text, found, index, value_of) or ()
            quoted = " and ".join(_quoted(box.content) for box in pair)
            return f"Which of the boxes {quoted} is the answer is open, so neither counts."
    content = found[-1].content
    try:
        value = read_integer(content)
    except NotExactError as error:
        return f"The box {_quoted(content)} holds no integer that counts: {error}."
    shown = _quoted(content)
    return f"The box {shown} is out of range: answers are integers from {low} to {high}."


def _without_box(text: str) -> str:
    if has_unclosed_box(text):
        return "The box is not closed, so it does not count."
    if re.search(r"\\(?:boxed|fbox)(?![a-zA-Z])", text):
        return "The box has no braces, so what it holds is open."
    if not text.strip():
        return "The final text is empty, without a \\boxed{} answer."
    for sentence in reversed(_SENTENCE.split(text.strip())):
        if bare := _INTEGER.findall(sentence):
            return (
                f'The final text has no \\boxed{{}}: in "{_shortened(sentence)}" the integer '
                f"{_shortened(bare[-1])} stands without a box, so it does not count."
            )
    return f'The final text has no \\boxed{{}} and names no integer: "{_shortened(text, True)}".'


def _quoted(content: str) -> str:
    return f"\\boxed{{{_shortened(content)}}}"


def _shortened(text: str, end: bool = False) -> str:
    """Return a text in one line and at most `_MAX_QUOTE` characters, its end rather if wanted."""
    text = " ".join(text.split())
    if len(text) <= _MAX_QUOTE:
        return text
    return "…" + text[-_MAX_QUOTE:] if end else text[:_MAX_QUOTE] + "…"
