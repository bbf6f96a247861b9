"""The one reason for which a text is not read as an integer."""

from __future__ import annotations


class NotExactError(ValueError):
    """The text does not denote one exact value; the message is a clause that says why."""
