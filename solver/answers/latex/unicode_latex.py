"""Rewrites Unicode's mathematical characters as the LaTeX and ASCII that the tokenizer reads."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "*", "✕": "*", "✖": "*",
    "·": "*", "⋅": "*", "∙": "*", "•": "*", "∗": "*", "⋆": "*", "\u2062": "*", "÷": "/", "∕": "/",
    "⁄": "/", "\u2064": "+", "\u2063": ",", "’": "'", "‘": "'", "ʼ": "'", "`": "", "“": '"',
    "”": '"', "„": '"', "«": '"', "»": '"', "٬": "{,}", "٫": ".", "。": ".", "、": ", ",
    "º": "°", "˚": "°", "∘": "°", "∣": "|", "‖": "|", "…": "\\ldots ", "⋯": "\\ldots ",
}  # fmt: skip
_COMMANDS = {
    "≤": "le", "≥": "ge", "⩽": "le", "⩾": "ge", "≠": "ne", "≈": "approx", "≃": "approx",
    "≅": "cong", "∼": "sim", "≡": "equiv", "≔": "coloneqq", "≜": "triangleq", "→": "to",
    "⟶": "to", "↦": "mapsto", "⇒": "implies", "⟹": "implies", "⇔": "iff", "⟺": "iff", "∈": "in",
    "∉": "notin", "⊂": "subset", "⊆": "subset", "±": "pm", "∓": "mp", "∝": "propto",
    "∧": "land", "∨": "lor", "∴": "therefore", "∎": "blacksquare", "■": "blacksquare",
    "□": "square", "▪": "blacksquare", "◼": "blacksquare", "◻": "square", "✓": "checkmark",
    "✔": "checkmark", "✅": "checkmark", "√": "surd", "⌊": "lfloor", "⌋": "rfloor",
    "⌈": "lceil", "⌉": "rceil", "∑": "sum", "∏": "prod", "∞": "infty", "⟨": "langle",
    "⟩": "rangle", "‰": "permille",
}  # fmt: skip
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\ufe0e\ufe0f\ufeff\u00ad\u202a\u202b\u202c"
_PLAIN = str.maketrans(
    _SIGNS
    | {sign: f"\\{name} " for sign, name in _COMMANDS.items()}
    | {"∛": "\\cuberoot ", "∜": "\\fourthroot "}
    | dict.fromkeys(_INVISIBLE, "")
    | {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
)
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾", "0123456789+-()", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_EMPHASIS = re.compile(r"(?<![\w)*])(\*{1,3})(?![\s*])([^*]+)(?<!\s)\1(?![\w(*])")
_UNDERSCORES = re.compile(r"\s*(_{1,2})(?![\s_{])(.+?)(?<![\s_\\])\1\s*")
_QUOTED = re.compile(r"\s*(?:``|''?|\")([^'`\"]+)(?:''?|\")\s*")
_TAG = re.compile(r"</?(?:b|i|em|strong|u|p|span|code|mark|div|center|big)>|<br ?/?>", re.I)
_VERBATIM = re.compile(r"\\verb\*?([^\sa-zA-Z*])(.*?)\1")


def plain_characters(text: str) -> str:
    """Return the text with LaTeX or ASCII in place of Unicode's signs, digits and spaces.

    Any decimal digit becomes its ASCII digit, any space a plain one, a run of superscripts
    `^{...}`, a vulgar fraction `\\frac{..}{..}`. Currency signs, zero-width marks, and the marks
    of Markdown's and HTML's emphasis are left out.
    """
    if match := _QUOTED.fullmatch(text):
        text = match[1]
    text = text.strip("\u2062\u2063\u2064 \n")
    text = "".join(map(_plain_character, text.translate(_PLAIN)))
    text = _scripts(_scripts(text, _SUPERSCRIPTS, "^"), _SUBSCRIPTS, "_")
    text = _TAG.sub(" ", _VERBATIM.sub(r"\2", text))
    if match := _UNDERSCORES.fullmatch(text):
        text = match[2]
    return _EMPHASIS.sub(r"\2", text)


def _plain_character(char: str) -> str:
    if char.isascii():
        return char
    if char in _VULGAR:
        value = Fraction(unicodedata.numeric(char)).limit_denominator(10)
        return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Sc":
        return ""
    return " " if category in ("Zs", "Zl", "Zp") else char


def _scripts(text: str, digits: dict[str, str], mark: str) -> str:
    run = re.compile(f"[{''.join(digits)}]+")
    return run.sub(lambda m: f"{mark}{{{''.join(digits[char] for char in m[0])}}}", text)
