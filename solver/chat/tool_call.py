"""What a model's tool call turns out to be: readable or not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One readable call of the tool `python`."""

    code: str


@dataclass(frozen=True)
class MalformedCall:
    """A call that cannot be read; `reason` is a short clause without a full stop."""

    reason: str


def checked(code: str) -> Call | MalformedCall:
    """`code` as a call, or what is wrong with it."""
    return Call(code) if code.strip() else MalformedCall("the code is empty")
