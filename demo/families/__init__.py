"""The families of problems: each is a kind of problem with phrasings and programs."""

from . import counting, digits, divisors, equations, modular, plane, sequences
from .family import ANSWERS, Family, Params, fill, fill_slots

FAMILIES: tuple[Family, ...] = (
    *divisors.FAMILIES,
    *modular.FAMILIES,
    *digits.FAMILIES,
    *counting.FAMILIES,
    *sequences.FAMILIES,
    *plane.FAMILIES,
    *equations.FAMILIES,
)

__all__ = ["ANSWERS", "FAMILIES", "Family", "Params", "fill", "fill_slots"]
