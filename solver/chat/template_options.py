"""What the solver tells a chat template besides the messages."""

from __future__ import annotations

from dataclasses import dataclass

EFFORTS = ("low", "medium", "high")
"""Reasoning efforts that can be asked for."""


@dataclass(frozen=True)
class TemplateOptions:
    """Options of a prompt that only some chat templates have.

    Attributes:
        reasoning_effort: one of `EFFORTS`; None takes the format's default. Formats without
            reasoning efforts refuse any other value.
        tool_seconds: seconds that a tool call may take; None leaves what the template says.
    """

    reasoning_effort: str | None = None
    tool_seconds: float | None = None


NO_OPTIONS = TemplateOptions()
