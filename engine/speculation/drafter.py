"""The protocol of drafters."""

from dataclasses import dataclass
from typing import Protocol

from ..scheduling.draft_tree import NO_DRAFTS, DraftTree
from ..scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Draft:
    """Drafts of one sequence, the likeliest ones first.

    Attributes:
        tree: the drafts; a parent comes before its children, so that the first drafts are a tree.
        chances: probability of each draft, that of all drafts before it on its path included;
            ``None`` if the drafter has no idea.
    """

    tree: DraftTree = NO_DRAFTS
    chances: tuple[float, ...] | None = None


class Drafter(Protocol):
    """Guesses the tokens that follow. A wrong guess costs time, never a wrong token.

    Attributes:
        name: how results and the start-up table call it.
        branches: True if drafts may be trees.
        gives_chances: True if drafts come with their chances. Otherwise each draft costs so much
            that only as many are asked for as will be verified.
    """

    name: str
    branches: bool
    gives_chances: bool

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return up to ``count`` drafts for each sequence."""

    def observe(self, sequences: list[Sequence]) -> None:
        """Take in the tokens that sequences have by now; called while a step runs."""

    def forget(self, seq: Sequence) -> None:
        """Drop what is known about a sequence that has ended."""
