"""Finds the integer answer in a model's final text."""

from __future__ import annotations

import re

from .latex_arithmetic import NotExact, evaluate

MIN_ANSWER, MAX_ANSWER = 0, 99_999
MAX_BOX = 300
"""A box with more characters than this holds no integer."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_WORDED = (
    "text|textbf|textit|textrm|texttt|textsf|textnormal|textup|emph|mathrm|mbox|hbox|color|"
    "textcolor|colorbox"
)
_STYLES = (
    f"{_WORDED}|mathbf|mathit|mathsf|mathtt|mathbb|mathcal|mathnormal|bm|bold|boldsymbol|"
    "operatorname|ensuremath|underline|boxed|fbox|displaystyle|textstyle"
)
_SWITCHES = (
    "bf|rm|it|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge|left|right|big|"
    "Big|bigl|bigr"
)
_STYLED = re.compile(rf"\\({_STYLES}|{_SWITCHES})\*?\s*\{{([^{{}}]*)\}}")
_LOOSE = re.compile(rf"\\(?:{_STYLES}|{_SWITCHES})(?![a-zA-Z])(?!\*?\s*\{{)")
_GAP = re.compile(r"\\(?:[hv]?phantom|[hv]space\*?)\s*\{[^{}]*\}|\\\\(?=\s*$)|\\ |\\$")
_WORDS = re.compile(r"[A-Za-z .:'-]*")
# Words around a number in one \text: an introduction that ends so, or what follows a number.
_SENTENCE = re.compile(
    r"\s*(?:[A-Za-z .:'-]*\b(?:is|are|equals|answer|ans)\b[\s:.]*)?"
    r"(?P<number>[^A-Za-z]*\d[^A-Za-z]*?)(?:[\s-][A-Za-z .'-]*)?",
    re.IGNORECASE,
)
# Words beside a number that change what it says; any other words are units or an introduction.
_TELLING = re.compile(
    r"\b(?:or|and|not|no|mod|modulo|about|approx|approximately|around|roughly|nearly|almost|than|"
    r"least|most|to|thousand|hundred|million|billion|half|dozen|percent|base|if|unless|except|"
    r"minus|plus|times|negative|over|under|above|below|more|less|fewer|case|step|part|problem|"
    r"question|option|choice|claim|method|i|e|k|(?-i:M|B))\b",
    re.IGNORECASE,
)
_THIN = r"(?:\\[,;:! ]|~|\\thinspace|\\space| )"
_GROUPED = re.compile(
    rf"(?<![\d.,])([1-9]\d{{0,2}})((?:(?:,|\\,|\\!|,\\!|{_THIN}|_|\\_)\d{{3}})+)(?![\d.,]*\d)"
)
_SPACES = re.compile(rf"(?:{_THIN}|\\quad|\\qquad|\\enspace|\s)+")
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "\u00a0": " ", "\u202f": " "}
    | {"\u2009": " "}
    | dict.fromkeys("°€£¥", "")
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")  # marks of no width
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_LOWERED = str.maketrans(_RAISED, "0123456789")


def boxes(text: str) -> list[str]:
    """The contents of the outermost `\\boxed{...}` (or `\\fbox`) in order, no unclosed ones."""
    closing = _closing(text)
    found, position = [], 0
    while match := _BOX.search(text, position):
        position = match.end()
        if (end := closing.get(match.end() - 1)) is not None:
            found.append(text[match.end() : end])
            position = end + 1
    return found


def _closing(text: str) -> dict[int, int]:
    """Where each opened brace closes; escaped braces do not count."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def integer(content: str) -> int | None:
    """The integer that a box's content denotes exactly, of any sign and size; None for no integer.

    Takes numbers with grouping, styles, units in \\text, `name = value` and exact arithmetic whose
    value is whole. Never rounds: 42.0 is 42, 42.4 is nothing.
    """
    if len(content) > MAX_BOX:
        return None
    text = re.sub(r"(?<![a-zA-Z])\{,\}", ",", content.translate(_SIGNS)).strip()
    text = re.sub(rf"(?<=[\d)}}])[{_RAISED}]+", lambda m: f"^{{{m[0].translate(_LOWERED)}}}", text)
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$|\\\$", " ", text)
    text = _LOOSE.sub(" ", _GAP.sub(" ", text))
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
    value = _GROUPED.sub(lambda m: m[1] + "".join(re.findall(r"\d", m[2])), value)
    if re.search(rf"\d(?:{_SPACES.pattern})\d", value):
        return None  # two numbers side by side
    try:
        result = evaluate(_SPACES.sub("", value))
    except NotExact:
        return None
    return result.numerator if result.denominator == 1 else None


def _unwrap(text: str) -> str | None:
    """Removes styles and harmless words, innermost first; None where words change the number."""
    while match := _STYLED.search(text):
        inner, end = _SPACES.sub(" ", match[2]), match.end()
        worded = match[1] in _WORDED.split("|")
        if worded and re.search("[A-Za-z]", inner):
            if _TELLING.search(inner):
                return None
            if _WORDS.fullmatch(inner):
                inner = " "
                # A unit's power belongs to the unit: 42\text{ cm}^2.
                power = re.match(r"\s*\^\s*(?:\{\s*[23]\s*\}|[23])", text[end:])
                end += power.end() if power else 0
            elif sentence := _SENTENCE.fullmatch(inner):
                inner = sentence["number"]
        text = text[: match.start()] + inner + text[end:]
    return text


def _residue(text: str) -> str | None:
    """`a` of `a \\pmod{m}`, `x \\equiv a \\pmod m` with 0 <= a < m; None for any other text."""
    match = re.fullmatch(r"(.*?)\\(?:pmod|pod)\s*\{?\s*(\d+)\s*\}?", text)
    if match is None:
        return None
    left = re.split(r"\\equiv|≡|=", match[1])[-1].strip()
    ok = re.fullmatch(r"\d+", left) and int(left) < int(match[2])
    return left if ok else None


def _right_side(text: str) -> str | None:
    """The value in `name = value` or `a = b = value`; None for several statements or a relation."""
    if re.search(
        r"\\(?:approx|sim|neq|ne|leq?|geq?|pm|mp|to|lt|gt|equiv|in)(?![a-zA-Z])|[<>≈&]|(?<!\\);",
        text,
    ):
        return None
    *left, right = text.split("=")
    names = (re.sub(r"\([^()]*\)", "", part) for part in left)  # f(3, 4) = 42 is one statement
    if any("," in name for name in names) or (left and "," in _GROUPED.sub("", right)):
        return None
    return right.strip()


def answer(text: str, low: int = MIN_ANSWER, high: int = MAX_ANSWER) -> int | None:
    """The last box in `text` that holds an integer in low..high; None where there is none."""
    for content in reversed(boxes(text)):
        value = integer(content)
        if value is not None and low <= value <= high:
            return value
    return None
