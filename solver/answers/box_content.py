"""Reads the integer that a box's content denotes.

Stages: Unicode becomes LaTeX (`unicode_latex`), LaTeX becomes nested tokens (`latex_tokens`),
styles and layout go (`latex_cleaning`), groups of digits join (`digit_groups`), the right side of
the statement is found and its words are judged (`statement`), and what is left is parsed
(`latex_arithmetic`) and evaluated (`exact_values`).
"""

from __future__ import annotations

from .latex.digit_groups import join_digits
from .latex.latex_cleaning import clean
from .latex.latex_tokens import read_nodes
from .latex.unicode_latex import plain_characters
from .not_exact_error import NotExactError
from .statement import stated_value

MAX_BOX = 1000
"""Number of characters above which a box is not read."""


def read_integer(content: str) -> int:
    """Return the integer that a box's content denotes exactly, of any sign and size.

    Reads numbers with grouping, styles, units and other words, `name = value`, moduli, and exact
    arithmetic with an integer value. Nothing is rounded: 42.0 is 42, and 42.4 is not an integer.

    Raises:
        NotExactError: if it denotes none, or could mean something else; the message says why.
    """
    if len(content) > MAX_BOX:
        raise NotExactError(f"it is longer than {MAX_BOX} characters")
    text = plain_characters(content)
    if len(text) > 2 * MAX_BOX:
        raise NotExactError("it holds too many signs that stand for others")
    nodes = join_digits(clean(read_nodes(text)))
    value = stated_value(nodes)
    if value.denominator != 1:
        shown = f" {value}" if max(abs(value.numerator), value.denominator) < 10**9 else ""
        raise NotExactError(f"its value{shown} is not an integer")
    return value.numerator


def integer(content: str) -> int | None:
    """Return the integer that a box's content denotes, or None; see `read_integer`."""
    try:
        return read_integer(content)
    except NotExactError:
        return None
