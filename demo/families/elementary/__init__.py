"""Families about whole numbers, counting, sums and shapes, as schools and first contests ask."""

from ..family import Family
from . import choices, classics, integers, searches, shapes, special_numbers, sums

FAMILIES: tuple[Family, ...] = (
    *integers.FAMILIES,
    *special_numbers.FAMILIES,
    *sums.FAMILIES,
    *choices.FAMILIES,
    *shapes.FAMILIES,
    *searches.FAMILIES,
    *classics.FAMILIES,
)
