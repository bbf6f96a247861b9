"""A family of problems, and how its templates are filled in.

In a template, ``{name}`` is replaced by the parameter of that name; other braces stay as they are,
so that programs may contain sets and dicts. ``[one|two|three]`` is replaced by one of its parts,
drawn at random, and ``<find>`` by one of the words that ask for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

Params = dict[str, int]

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
_FIND = "[Find|Determine|Compute|Calculate]"

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
    """Return a checked family; newlines around the programs, which literals carry, are removed."""
    made = Family(
        name, draw, tuple(phrasings), tuple(thoughts), tuple(p.strip("\n") for p in programs)
    )
    made.check()
    return made


def fill(template: str, params: Mapping[str, int], rng: Random) -> str:
    """Return the template with its choices drawn and its slots filled."""
    text = template.replace("<find>", _FIND)
    text = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), text)
    return fill_slots(text, params)


def fill_slots(template: str, params: Mapping[str, int]) -> str:
    """Return the template with its slots filled; a slot of an unknown name stays as it is."""
    return _SLOT.sub(lambda m: str(params[m[1]]) if m[1] in params else m[0], template)


def number(rng: Random, low: int, high: int) -> int:
    """Draw an integer in low..high, both at least 0: first its number of digits, then its value."""
    digits = rng.randint(len(str(low)), len(str(high)))
    return rng.randint(max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1))


def modulus(rng: Random, high: int = 99_999) -> int:
    """Draw a modulus of two to five digits."""
    return number(rng, 11, high)
