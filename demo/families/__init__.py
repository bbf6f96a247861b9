"""The families of problems: each is a kind of problem with phrasings and programs."""

from . import counting, digits, divisors, equations, modular, plane, sequences
from .elementary import FAMILIES as ELEMENTARY_FAMILIES
from .family import ANSWERS, Family, Params, add_phrasings, fill, write_problem
from .grammar import fill_slots
from .newcomer_wordings import WORDINGS as NEWCOMER_WORDINGS
from .school import FAMILIES as SCHOOL_FAMILIES
from .wordings import WORDINGS

_NAMED = (
    *divisors.FAMILIES,
    *modular.FAMILIES,
    *digits.FAMILIES,
    *counting.FAMILIES,
    *sequences.FAMILIES,
    *plane.FAMILIES,
    *equations.FAMILIES,
)
FAMILIES: tuple[Family, ...] = (
    *(add_phrasings(family, WORDINGS.get(family.name, ())) for family in _NAMED),
    *(
        add_phrasings(family, NEWCOMER_WORDINGS.get(family.name, ()))
        for family in (*SCHOOL_FAMILIES, *ELEMENTARY_FAMILIES)
    ),
)

__all__ = ["ANSWERS", "FAMILIES", "Family", "Params", "fill", "fill_slots", "write_problem"]
