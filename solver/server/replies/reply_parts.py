"""What one answer is made of: thoughts, text and calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from .function_calls import FunctionCall


@dataclass
class ReplyParts:
    """The parts of an answer; while it grows, what is new in them.

    Attributes:
        reasoning: the text of thoughts.
        content: the text that is meant for the user.
        calls: calls of tools, known at the end.
    """

    reasoning: str = ""
    content: str = ""
    calls: list[FunctionCall] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)

    def add(self, new: ReplyParts) -> None:
        """Add new parts at the end."""
        self.reasoning += new.reasoning
        self.content += new.content
        self.calls += new.calls


def held_back(text: str, marks: tuple[str, ...]) -> int:
    """Return how many characters at the end of the text could begin one of the marks."""
    longest = max(map(len, marks), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0
