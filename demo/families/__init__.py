"""The families of problems: each is a kind of problem with phrasings and programs."""

from . import counting, digits, divisors, equations, modular, plane, sequences
from .elementary import FAMILIES as ELEMENTARY_FAMILIES
from .family import ANSWERS, Family, Params, add_phrasings, fill, write_problem
from .grammar import fill_slots
from .phrasing_files import read_phrasings
from .school import FAMILIES as SCHOOL_FAMILIES

_MORE = read_phrasings()

FAMILIES: tuple[Family, ...] = tuple(
    add_phrasings(family, _MORE.get(family.name, ()))
    for family in (
        *divisors.FAMILIES,
        *modular.FAMILIES,
        *digits.FAMILIES,
        *counting.FAMILIES,
        *sequences.FAMILIES,
        *plane.FAMILIES,
        *equations.FAMILIES,
        *SCHOOL_FAMILIES,
        *ELEMENTARY_FAMILIES,
    )
)

__all__ = ["ANSWERS", "FAMILIES", "Family", "Params", "fill", "fill_slots", "write_problem"]
