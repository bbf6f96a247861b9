"""Families of school arithmetic: calculations, word problems, percent, time and equations."""

from ..family import Family
from . import calculation, calendar, everyday, expressions, percent, rates, stories, unknowns

FAMILIES: tuple[Family, ...] = (
    *expressions.FAMILIES,
    *calculation.FAMILIES,
    *percent.FAMILIES,
    *stories.FAMILIES,
    *rates.FAMILIES,
    *calendar.FAMILIES,
    *unknowns.FAMILIES,
    *everyday.FAMILIES,
)
