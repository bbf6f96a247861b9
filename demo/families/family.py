"""A family of problems, and how its templates are filled in; see `grammar` for their language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from .grammar import draw_text, fill_slots, story_words
from .spelling import draw_style, fill_text, polish, rename_letters, restyle_math

Params = Mapping[str, int | str]
"""Numbers of a problem, and texts that belong to it, such as an expression, by name."""

ANSWERS = range(100_000)
"""The integers that can be answers."""


@dataclass(frozen=True)
class Family:
    """One kind of problem.

    Attributes:
        name: identifier, unique among the families.
        draw: draws parameters, or None if this draw is unsuitable and another is needed.
        phrasings: templates of the problem's text; the last one is held out from training.
        thoughts: templates of what the model thinks before its first call.
        programs: templates of different Python programs with the same answer, which each prints
            or has as the value of its last expression.
    """

    name: str
    draw: Callable[[Random], Params | None]
    phrasings: tuple[str, ...]
    thoughts: tuple[str, ...]
    programs: tuple[str, ...]

    def check(self) -> None:
        """Assert that the family has what the splits and the traces need."""
        assert len(self.phrasings) >= 4, self.name
        assert len(set(self.phrasings)) == len(self.phrasings), self.name
        assert len(self.programs) >= 2, self.name
        assert self.thoughts, self.name


def family(
    name: str,
    draw: Callable[[Random], Params | None],
    phrasings: list[str],
    thoughts: list[str],
    programs: list[str],
) -> Family:
    """Return a checked family.

    Newlines around the programs, which literals carry, are removed. A family with one program gets
    a second one, which gives the printed value a name.
    """
    texts = [p.strip("\n") for p in programs]
    if len(texts) == 1:
        head, newline, last = texts[0].rpartition("\n")
        assert last.startswith("print("), name
        texts.append(f"{head}{newline}answer = {last[6:-1]}\nprint(answer)")
    made = Family(name, draw, tuple(phrasings), tuple(thoughts), tuple(texts))
    made.check()
    return made


def add_phrasings(made: Family, phrasings: tuple[str, ...]) -> Family:
    """Return the family with more phrasings, before the last one, which is held out."""
    return replace(made, phrasings=(*made.phrasings[:-1], *phrasings, made.phrasings[-1]))


def fill(template: str, params: Mapping[str, int | str], rng: Random) -> str:
    """Return the template with its choices drawn and its slots filled."""
    return fill_slots(draw_text(template, rng), params)


def write_problem(
    template: str, params: Mapping[str, int | str], rng: Random, literal: bool = False
) -> str:
    """Return a problem's text in one of many spellings.

    Args:
        template: a phrasing of the family, or a paraphrase.
        params: what its slots hold.
        rng: draws the wording, the story and the spelling.
        literal: the template is a paraphrase: it has slots, but no choices.
    """
    text = template if literal else draw_text(template, rng)
    for name, value in params.items():
        if isinstance(value, str) and "{" in value:  # a story, which is a template itself
            text = text.replace(f"{{{name}}}", draw_text(value, rng))
    text = fill_text(text, {**story_words(rng), **params}, draw_style(rng))
    if rng.random() < 0.25:
        text = rename_letters(text, rng)
    return polish(restyle_math(text, rng), rng)


def number(rng: Random, low: int, high: int) -> int:
    """Draw an integer in low..high, both at least 0: first its number of digits, then its value."""
    digits = rng.randint(len(str(low)), len(str(high)))
    return rng.randint(max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1))


def modulus(rng: Random, high: int = 99_999) -> int:
    """Draw a modulus of two to five digits."""
    return number(rng, 11, high)
