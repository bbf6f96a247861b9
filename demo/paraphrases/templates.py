"""Turn a paraphrase of a problem back into a template, if it says the same numbers.

A seed is a problem with numbers that all differ, so that each number in a paraphrase can be traced
to the slot it came from. A paraphrase becomes a template only if its numbers are those of the seed,
no more and no fewer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from ..families import Family, Params, fill_slots
from ..families.grammar import draw_text, story_words
from ..families.spelling import number_in_words, ordinal, plain_notation

_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?|\d+")
_WORD_NUMBERS = {number_in_words(n): n for n in range(2, 101)}
_WORD_NUMBER = re.compile(
    r"\b(" + "|".join(sorted(_WORD_NUMBERS, key=len, reverse=True)) + r")\b", re.IGNORECASE
)
KEPT_WORDS = ("who", "who2", "who3", "items", "items2", "items3", "boxes", "money", "length")
"""Words of a story that are slots in a template, too, if the paraphrase has kept them."""

DRAWS = 60


@dataclass(frozen=True)
class Seed:
    """A problem to be paraphrased.

    Attributes:
        family: name of its family.
        params, words: what its slots hold: numbers, and words of the story.
        text: the problem.
        answer: its answer.
    """

    family: str
    params: Params
    words: dict[str, str]
    text: str
    answer: int


class NotATemplate(Exception):  # noqa: N818 - not an error: the paraphrase is left out
    """A paraphrase cannot be used; the message is the reason."""


def make_seed(family: Family, rng: Random, answer: int, params: Params) -> Seed | None:
    """Return a problem of the family to be paraphrased, or None if its numbers are not distinct."""
    template = rng.choice(family.phrasings[:-1])
    if any(isinstance(v, str) and "{" in v for v in params.values()):
        return None
    words = story_words(rng)
    text = draw_text(template, rng)
    used = {k: v for k, v in params.items() if f"{{{k}}}" in text}
    literal = _NUMBER.findall(re.sub(r"\{\w+\}", "", text))
    shown = [str(v) for v in used.values()]
    if not used or len(set(shown)) < len(shown) or set(shown) & set(literal):
        return None
    if any(isinstance(v, int) and v < 3 for v in used.values()):
        return None
    parts = fill_slots(text, {**words, **params}).split("$")
    for index in range(1, len(parts), 2):
        parts[index] = (
            f"${parts[index]}$" if rng.random() < 0.4 else plain_notation(parts[index], rng)
        )
    kept = {k: words[k] for k in KEPT_WORDS if f"{{{k}}}" in text}
    return Seed(family.name, used, kept, "".join(parts), answer)


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text, those in words included, as digits."""
    spelled = _WORD_NUMBER.sub(lambda m: str(_WORD_NUMBERS[m[1].lower()]), text)
    return [n.replace(",", "").rstrip(".") for n in _NUMBER.findall(spelled)]


def to_template(seed: Seed, paraphrase: str) -> str:
    """Return the paraphrase with its numbers and the words of the story as slots.

    Raises:
        NotATemplate: its numbers are not those of the seed, or it is no other text.
    """
    text = " ".join(paraphrase.split())
    if text.lower() == " ".join(seed.text.split()).lower():
        raise NotATemplate("same text")
    if not 12 <= len(text) <= 420 or any(ord(c) > 0x2FFF for c in text) or "{" in _unmath(text):
        raise NotATemplate("length or signs")
    if text.count("$") % 2:
        raise NotATemplate("length or signs")
    if set(numbers_in(text)) != set(numbers_in(seed.text)):
        raise NotATemplate("other numbers")
    holders = sorted(seed.params.items(), key=lambda item: -len(str(item[1])))
    for name, value in holders:
        text, found = _put_slot(text, name, value)
        if not found:
            raise NotATemplate("other numbers")
    for name, word in seed.words.items():
        text = re.sub(rf"(?<![\w{{]){re.escape(word)}(?![\w}}])", f"{{{name}}}", text)
    return text


def _unmath(text: str) -> str:
    """Return the text without its mathematics, in which braces belong to LaTeX."""
    return "".join(text.split("$")[::2])


def _put_slot(text: str, name: str, value: int | str) -> tuple[str, int]:
    """Return the text with a value replaced by its slot, and how often it was found."""
    if isinstance(value, str):
        return re.subn(rf"(?<![\w{{]){re.escape(value)}(?![\w}}])", lambda _: f"{{{name}}}", text)
    ways = [ordinal(value), f"{value}th", f"{value:,}", str(value)]
    total = 0
    for way in dict.fromkeys(ways):
        slot = f"{{{name}}}th" if way[-1].isalpha() else f"{{{name}}}"
        text, found = re.subn(rf"(?<![\d{{.]){re.escape(way)}(?![\d}}])", lambda _, s=slot: s, text)  # type: ignore[misc]
        total += found
    if 2 <= value <= 100:
        way = re.escape(number_in_words(value))
        text, found = re.subn(rf"\b{way}\b", f"{{{name}}}", text, flags=re.IGNORECASE)
        total += found
    return text, total


def seed_table(seed: Seed) -> Mapping[str, object]:
    """Return a seed as a JSON object; `Seed(**table)` is the seed again."""
    return {
        "family": seed.family,
        "params": seed.params,
        "words": seed.words,
        "text": seed.text,
        "answer": seed.answer,
    }
