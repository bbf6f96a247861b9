"""Ways to write the same problem: plain notation, numbers in words, other names, surplus sentences.

A problem's text is made of a template whose mathematics stands between dollar signs, in LaTeX. Each
function here changes how it looks, never what it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

_SLOT_WITH_TH = re.compile(r"\{(\w+)\}(th\b)?")

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

OPENINGS = (
    "Hello! ", "Hi, ", "Please solve this: ", "Problem: ", "Question: ", "Problem 3. ", "Solve: ",
    "Here is a question. ", "A puzzle: ", "Can you help me? ", "I need help with this. ", "1. ",
    "Homework: ", "Task: ", "Consider the following problem. ", "Exercise 12. ", "Quick question: ",
    "A question from my math class: ", "This is from a school competition. ", "Q: ", "(a) ",
    "My teacher asked: ", "Let us warm up. ", "Solve the following problem. ", "Please answer. ",
    "Hey there, ", "Good morning. ", "I am stuck on this one. ", "My daughter asked me: ", "#4: ",
    "Math problem: ", "An easy one: ", "A classic: ", "I was wondering: ", "Just curious: ",
    "Today's puzzle: ", "Suppose you are in a quiz. ", "It is raining, so we do math. ",
    "Anna likes riddles. ", "In a test there was this question. ", "Read carefully. ",
    "We are in class 5. ", "For practice: ", "Use a calculator if you want. ", "Try this: ",
    "This one is for fun. ", "A friend gave me this. ", "Next problem. ", "Problem 27: ",
)  # fmt: skip
ENDINGS = (
    " Give your answer as an integer.", " The answer is a whole number.", " Show your work.",
    " Explain.", " Please help!", " Thank you!", " Thanks.", " Use Python if you like.",
    " Answer with a number.", " Give only the number.", " No calculator allowed.", " Be careful.",
    " Put the final answer in a box.", " Write the result in decimal.", " Think step by step.",
    " Give the exact value.", " (5 points)", " What is the answer?", " Please give the result.",
    " Express your answer as an integer.", " Answer in digits.", " I need it for tomorrow.",
    " It should be easy.", " What do you think?", " Return only the answer.", " Do not guess.",
    " Please explain how.", " Give the final answer.", " Solve it with a program.", " Help me out.",
    " State the number.", " Enter a number.", " How do I do that?", " Many thanks in advance!",
)  # fmt: skip

CURRENCIES = {"dollars": "$", "euros": "€", "pounds": "£"}
"""Signs that may stand before an amount, by the words behind it."""

_LONG = (
    (re.compile(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}"), lambda a, b: f"{_grouped(a)}/{_grouped(b)}"),
    (re.compile(r"\\binom\{([^{}]*)\}\{([^{}]*)\}"), lambda a, b: f"C({a}, {b})"),
)
_WORDS = {
    "\\cdot": (" * ", "*", "·"), "\\times": (" x ", " * ", "*", " × "), "\\le": ("<=", "≤"),
    "\\leq": ("<=", "≤"), "\\ge": (">=", "≥"), "\\geq": (">=", "≥"), "\\ne": ("!=", "≠"),
    "\\neq": ("!=", "≠"), "\\bmod": ("mod", "mod", "%"), "\\equiv": ("=", "≡", "=="),
    "\\ldots": ("...", "…"), "\\dots": ("...", "…"), "\\cdots": ("...", "…"), "\\in": ("in",),
    "\\mid": ("divides",), "\\lfloor": ("floor(",), "\\rfloor": (")",), "\\left": ("",),
    "\\right": ("",), "\\div": ("/", " / ", "÷", " ÷ "), "\\mapsto": ("->",), "\\to": ("->",),
    "\\quad": (" ",), "\\pi": ("pi", "π"), "\\circ": ("∘", "o"), "\\%": ("%",),
}  # fmt: skip


def number_in_words(value: int) -> str:
    """Return a number from 0 to 999,999 in English words."""
    if value < 20:
        return ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return TENS[tens] + (f"-{ONES[ones]}" if ones else "")
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        return f"{ONES[hundreds]} hundred" + (f" and {number_in_words(rest)}" if rest else "")
    thousands, rest = divmod(value, 1000)
    return f"{number_in_words(thousands)} thousand" + (f" {number_in_words(rest)}" if rest else "")


def _grouped(text: str) -> str:
    """Return a part of a fraction in brackets if it is more than a number or a name."""
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def plain_notation(math: str, rng: Random) -> str:
    """Return LaTeX as one types it without LaTeX: ``a^b``, ``a*b``, ``<=``, ``mod``."""
    for pattern, written in _LONG:
        math = pattern.sub(lambda m, w=written: w(m[1], m[2]), math)  # type: ignore[misc]
    math = re.sub(r"\\sqrt\{([^{}]*)\}", rng.choice((r"sqrt(\1)", r"√\1", r"sqrt(\1)")), math)
    math = re.sub(r"\\pmod\{([^{}]*)\}", rng.choice((r"(mod \1)", r"mod \1")), math)
    math = re.sub(r"\\(?:text|mathrm|operatorname)\{([^{}]*)\}", r"\1", math)
    math = re.sub(r"\^\{?\\circ\}?", rng.choice(("°", " degrees")), math)
    power = "**" if rng.random() < 0.2 else "^"
    math = re.sub(r"\^\{(\w+)\}|\^(\w)", lambda m: power + (m[1] or m[2]), math)
    math = re.sub(r"\^\{([^{}]*)\}", lambda m: f"{power}({m[1]})", math)
    math = re.sub(r"_\{(\w+)\}", r"_\1", math)
    math = re.sub(r"_\{([^{}]*)\}", r"_(\1)", math)
    chosen = {word: rng.choice(ways) for word, ways in _WORDS.items()}
    math = re.sub(
        r"\s?(\\(?:[a-zA-Z]+|%))\s?",
        lambda m: _spaced(m[0], m[1], chosen.get(m[1], m[1][1:])),
        math,
    )
    if rng.random() < 0.45:
        math = re.sub(r" ?([-+*/=<>≤≥·×]|<=|>=) ?", r"\1", math)
    return math.replace("\\{", "{").replace("\\}", "}").replace("\\,", " ").replace("\\ ", " ")


def _spaced(found: str, word: str, written: str) -> str:
    """Return what stands for a LaTeX command, with the spaces that stood around it."""
    before = " " if found[0].isspace() and not written.startswith(" ") else ""
    after = " " if found[-1].isspace() and not written.endswith(" ") else ""
    if word in ("\\cdot", "\\times", "\\div", "\\lfloor", "\\rfloor"):
        before = after = ""
    return before + written + after


def rename_letters(text: str, rng: Random) -> str:
    """Return the text with the single letters of its mathematics renamed, consistently."""
    parts = text.split("$")
    letter = re.compile(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])")
    product = re.compile(r"(?<![A-Za-z\\])[a-z]{1,3}(?![A-Za-z])")
    names = sorted({name for part in parts[1::2] for name in letter.findall(part)} - {"d", "e"})
    if not names or len(names) > 4:
        return text
    free = [c for c in "abcghjkmnpqrstuvwxyz" if c not in names]
    table = dict(zip(names, rng.sample(free, len(names)), strict=True))
    renamed = str.maketrans(table)
    for index in range(1, len(parts), 2):
        parts[index] = product.sub(
            lambda m: m[0].translate(renamed) if set(m[0]) <= table.keys() else m[0], parts[index]
        )
    return "$".join(parts)


def write_number(value: int | str, style: str, in_math: bool) -> str:
    """Return a parameter as it is written in a style: "words", "commas" or "digits"."""
    if isinstance(value, str) or in_math or style == "digits":
        return str(value)
    if style == "commas" and value >= 3000:  # smaller ones may be years
        return f"{value:,}"
    if style == "words" and value <= 100:
        return number_in_words(value)
    return str(value)


def ordinal(value: int) -> str:
    """Return 1st, 2nd, 3rd, 4th and so on."""
    last = (
        "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    )
    return f"{value}{last}"


def fill_text(text: str, params: Mapping[str, int | str], style: str = "digits") -> str:
    """Return a text with its slots filled; numbers between dollar signs stay in digits."""

    def written(match: re.Match[str], in_math: bool) -> str:
        value = params.get(match[1])
        if value is None:
            return match[0]
        if match[2]:
            return ordinal(value) if isinstance(value, int) else f"{value}th"
        return write_number(value, style, in_math)

    parts = text.split("$")
    for index, part in enumerate(parts):
        parts[index] = _SLOT_WITH_TH.sub(lambda m, i=index % 2 == 1: written(m, i), part)  # type: ignore[misc]
    return "$".join(parts)


def restyle_math(text: str, rng: Random) -> str:
    """Return the text with its mathematics in LaTeX, in plain notation or in other brackets."""
    if "$" not in text:
        return text
    parts = text.split("$")
    drawn = rng.random()
    if drawn < 0.5:
        return text
    if drawn < 0.56:
        for index in range(1, len(parts), 2):
            parts[index] = f"\\({parts[index]}\\)"
    else:
        for index in range(1, len(parts), 2):
            parts[index] = plain_notation(parts[index], rng)
    return "".join(parts)


def mistype(text: str, rng: Random) -> str:
    """Return the text with two letters of a longer word swapped, or one of them left out."""
    words = list(re.finditer(r"(?<![\\\w{])[a-z]{5,}(?![\w}])", text))
    if not words or "$" in text:
        return text
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 1)
    middle = text[at + 1] + text[at] if rng.random() < 0.5 else text[at + 1]
    return text[:at] + middle + text[at + 2 :]


def polish(text: str, rng: Random) -> str:
    """Return the text as people type it: a surplus sentence, small letters, lost punctuation."""
    text = text[:1].upper() + text[1:]
    if "$" not in text and rng.random() < 0.4:
        for word, sign in CURRENCIES.items():
            text = re.sub(rf"(\d[\d,]*) {word}\b", rf"{sign}\1", text)
    drawn = rng.random()
    if drawn > 0.97:
        text = mistype(text, rng)
    elif drawn < 0.09:
        text = rng.choice(OPENINGS) + text
    elif drawn < 0.18:
        text += rng.choice(ENDINGS)
    elif drawn < 0.23:
        text = text[:1].lower() + text[1:]
    elif drawn < 0.30:
        text = text.rstrip("?. ")
    elif drawn < 0.32:
        text = text.lower() if "$" not in text else text
    elif drawn < 0.34:
        text = text.replace("?", " ?").replace(",", " ,")
    elif drawn < 0.36:
        text = text.replace(". ", ".\n", 1)
    elif drawn < 0.38:
        text = text.replace("?", ".")
    elif drawn < 0.39:
        text = text.upper() if "$" not in text and "\\" not in text else text
    return text


def draw_style(rng: Random) -> str:
    """Draw how numbers are written."""
    drawn = rng.random()
    return "words" if drawn < 0.1 else "commas" if drawn < 0.2 else "digits"
