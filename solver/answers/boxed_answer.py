"""Finds the boxed integer answer in a model's final text."""

from __future__ import annotations

import re

from .latex_arithmetic import NotExactError, evaluate

MIN_ANSWER, MAX_ANSWER = 0, 99_999
MAX_BOX = 300
"""Number of characters above which a box is not read."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_TEXT_COMMANDS = (
    "text|textbf|textit|textrm|texttt|textsf|textnormal|textup|emph|mathrm|mbox|hbox|color|"
    "textcolor|colorbox"
)
_STYLE_COMMANDS = (
    f"{_TEXT_COMMANDS}|mathbf|mathit|mathsf|mathtt|mathbb|mathcal|mathnormal|bm|bold|boldsymbol|"
    "operatorname|ensuremath|underline|boxed|fbox|displaystyle|textstyle"
)
_SWITCH_COMMANDS = (
    "bf|rm|it|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge|left|right|big|"
    "Big|bigl|bigr"
)
_STYLED_GROUP = re.compile(rf"\\({_STYLE_COMMANDS}|{_SWITCH_COMMANDS})\*?\s*\{{([^{{}}]*)\}}")
_STYLE_WITHOUT_GROUP = re.compile(
    rf"\\(?:{_STYLE_COMMANDS}|{_SWITCH_COMMANDS})(?![a-zA-Z])(?!\*?\s*\{{)"
)
_INVISIBLE = re.compile(r"\\(?:[hv]?phantom|[hv]space\*?)\s*\{[^{}]*\}|\\\\(?=\s*$)|\\ |\\$")
_ONLY_WORDS = re.compile(r"[A-Za-z .:'-]*")
# Words around a number in one \text: an introduction ending in "is" or alike, and words after it.
_WORDS_AROUND_NUMBER = re.compile(
    r"\s*(?:[A-Za-z .:'-]*\b(?:is|are|equals|answer|ans)\b[\s:.]*)?"
    r"(?P<number>[^A-Za-z]*\d[^A-Za-z]*?)(?:[\s-][A-Za-z .'-]*)?",
    re.IGNORECASE,
)
# Words beside a number that change its meaning; other words are units or an introduction.
_MEANINGFUL_WORDS = re.compile(
    r"\b(?:or|and|not|no|mod|modulo|about|approx|approximately|around|roughly|nearly|almost|than|"
    r"least|most|to|thousand|hundred|million|billion|half|dozen|percent|base|if|unless|except|"
    r"minus|plus|times|negative|over|under|above|below|more|less|fewer|case|step|part|problem|"
    r"question|option|choice|claim|method|i|e|k|(?-i:M|B))\b",
    re.IGNORECASE,
)
_THIN_SPACE = r"(?:\\[,;:! ]|~|\\thinspace|\\space| )"
_GROUPED_DIGITS = re.compile(
    rf"(?<![\d.,])([1-9]\d{{0,2}})((?:(?:,|\\,|\\!|,\\!|{_THIN_SPACE}|_|\\_)\d{{3}})+)(?![\d.,]*\d)"
)
_SPACES = re.compile(rf"(?:{_THIN_SPACE}|\\quad|\\qquad|\\enspace|\s)+")
_PLAIN_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "\u00a0": " ", "\u202f": " "}
    | {"\u2009": " "}
    | dict.fromkeys("°€£¥", "")
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")  # zero-width marks
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_FROM_SUPERSCRIPT = str.maketrans(_SUPERSCRIPTS, "0123456789")


def boxes(text: str) -> list[str]:
    """Return the contents of the outermost `\\boxed{...}` and `\\fbox{...}`, in order.

    Unclosed boxes are left out.
    """
    closing = _closing(text)
    contents, position = [], 0
    while match := _BOX.search(text, position):
        position = match.end()
        if (end := closing.get(match.end() - 1)) is not None:
            contents.append(text[match.end() : end])
            position = end + 1
    return contents


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


def integer(content: str) -> int | None:
    """Return the integer that a box's content denotes exactly, of any sign and size, or None.

    Reads numbers with grouping, styles, units in \\text, `name = value`, and exact arithmetic with
    an integer value. Nothing is rounded: 42.0 is 42, and 42.4 is not an integer.
    """
    if len(content) > MAX_BOX:
        return None
    text = re.sub(r"(?<![a-zA-Z])\{,\}", ",", content.translate(_PLAIN_SIGNS)).strip()
    text = re.sub(
        rf"(?<=[\d)}}])[{_SUPERSCRIPTS}]+",
        lambda m: f"^{{{m[0].translate(_FROM_SUPERSCRIPT)}}}",
        text,
    )
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$|\\\$", " ", text)
    text = _STYLE_WITHOUT_GROUP.sub(" ", _INVISIBLE.sub(" ", text))
    unwrapped = _unwrap(text)
    if unwrapped is None:
        return None
    text = unwrapped.strip().rstrip(".").strip()
    text = re.sub(r"(?<=\d)_\{?10\}?$", "", text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree", " ", text).strip()
    reduced = _residue(text)
    value = reduced if reduced is not None else _right_side(text)
    if value is None:
        return None
    value = _GROUPED_DIGITS.sub(lambda m: m[1] + "".join(re.findall(r"\d", m[2])), value)
    if re.search(rf"\d(?:{_SPACES.pattern})\d", value):
        return None  # two numbers side by side
    try:
        result = evaluate(_SPACES.sub("", value))
    except NotExactError:
        return None
    return result.numerator if result.denominator == 1 else None


def _unwrap(text: str) -> str | None:
    """Remove styles and harmless words, innermost first; None if words change the number."""
    while match := _STYLED_GROUP.search(text):
        inner, end = _SPACES.sub(" ", match[2]), match.end()
        worded = match[1] in _TEXT_COMMANDS.split("|")
        if worded and re.search("[A-Za-z]", inner):
            if _MEANINGFUL_WORDS.search(inner):
                return None
            if _ONLY_WORDS.fullmatch(inner):
                inner = " "
                # The power of a unit belongs to the unit: 42\text{ cm}^2.
                power = re.match(r"\s*\^\s*(?:\{\s*[23]\s*\}|[23])", text[end:])
                end += power.end() if power else 0
            elif sentence := _WORDS_AROUND_NUMBER.fullmatch(inner):
                inner = sentence["number"]
        text = text[: match.start()] + inner + text[end:]
    return text


def _residue(text: str) -> str | None:
    """Return `a` of `a \\pmod{m}` or `x \\equiv a \\pmod m` if 0 <= a < m; None otherwise."""
    match = re.fullmatch(r"(.*?)\\(?:pmod|pod)\s*\{?\s*(\d+)\s*\}?", text)
    if match is None:
        return None
    left = re.split(r"\\equiv|≡|=", match[1])[-1].strip()
    ok = re.fullmatch(r"\d+", left) and int(left) < int(match[2])
    return left if ok else None


def _right_side(text: str) -> str | None:
    """Return what follows the last equals sign, as in `name = value` or `a = b = value`.

    Returns None for several statements and for other relations.
    """
    if re.search(
        r"\\(?:approx|sim|neq|ne|leq?|geq?|pm|mp|to|lt|gt|equiv|in)(?![a-zA-Z])|[<>≈&]|(?<!\\);",
        text,
    ):
        return None
    *left, right = text.split("=")
    names = (re.sub(r"\([^()]*\)", "", part) for part in left)  # f(3, 4) = 42 is one statement
    if any("," in name for name in names) or (left and "," in _GROUPED_DIGITS.sub("", right)):
        return None
    return right.strip()


def answer(text: str, low: int = MIN_ANSWER, high: int = MAX_ANSWER) -> int | None:
    """Return the integer in the last box of a text that holds one in the range, or None.

    Args:
        text: final text of a model, without thoughts and tool calls.
        low, high: range of answers, both included.
    """
    for content in reversed(boxes(text)):
        value = integer(content)
        if value is not None and low <= value <= high:
            return value
    return None
