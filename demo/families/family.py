"""What a family of problems consists of, and how its templates are filled in.

Templates know two things: ``{name}`` is replaced by a parameter of that name (other braces stay as they are, so
that sets and dicts may be written in programs), and ``[one|two|three]`` by one of its parts, drawn at random.
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


@dataclass(frozen=True)
class Family:
    """One kind of problem.

    name: identifier, unique among the families.
    draw: parameters from a random generator, or None where this draw is no good and another is to be made.
    phrasings: problem texts; the last one is held out from training.
    thoughts: what the model thinks before its first call.
    programs: different Python programs for the same answer; each prints it or ends in an expression for it.
    """

    name: str
    draw: Callable[[Random], Params | None]
    phrasings: tuple[str, ...]
    thoughts: tuple[str, ...]
    programs: tuple[str, ...]

    def check(self) -> None:
        """Every family has what the split and the traces need."""
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
    """A checked family, its programs stripped of the newlines that the literals carry."""
    made = Family(
        name, draw, tuple(phrasings), tuple(thoughts), tuple(p.strip("\n") for p in programs)
    )
    made.check()
    return made


def fill(template: str, params: Mapping[str, int], rng: Random) -> str:
    """The template with its choices drawn and its slots filled."""
    text = template.replace("<find>", _FIND)
    text = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), text)
    return fill_slots(text, params)


def fill_slots(template: str, params: Mapping[str, int]) -> str:
    """The template with its slots filled; a slot of unknown name stays as it is."""
    return _SLOT.sub(lambda m: str(params[m[1]]) if m[1] in params else m[0], template)


def number(rng: Random, low: int, high: int) -> int:
    """An integer in low..high (both at least 0): first its number of digits is drawn, then its value."""
    digits = rng.randint(len(str(low)), len(str(high)))
    return rng.randint(max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1))


def modulus(rng: Random, high: int = 99_999) -> int:
    """A modulus of two to five digits."""
    return number(rng, 11, high)
