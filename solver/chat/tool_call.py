"""Tool calls as parsed from a model's text: readable or malformed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One readable call of the tool `python`."""

    code: str


@dataclass(frozen=True)
class MalformedCall:
    """A call that cannot be read; `reason` is a short clause without a full stop.

    The model reads the reason, so its wording is part of the prompt.
    """

    reason: str


def checked_call(code: str) -> Call | MalformedCall:
    """Return `code` as a call, or as a malformed one if it is blank."""
    return Call(code) if code.strip() else MalformedCall("the code is empty")
