"""The protocol of what gives the scheduler drafts."""

from typing import Protocol

from .draft_tree import DraftTree
from .sequence import Sequence


class DraftSource(Protocol):
    """Proposes drafts for a step, and is told what became of them."""

    def propose(self, sequences: list[Sequence], rooms: list[int]) -> list[DraftTree]:
        """Return drafts for each sequence of a step, possibly none.

        Args:
            sequences: sequences whose newest token the step computes.
            rooms: how many tokens each of them may draw in the step, beside the one it draws
                anyway: no draft may be deeper.
        """

    def device_drafts(self, sequences: list[Sequence]) -> int:
        """Return how many drafts of each sequence the device should make by itself.

        They are verified in the next step, which then starts without waiting for the results of
        the step before. 0 if it cannot, or if drafts do not pay.
        """

    def record(self, seq: Sequence, drafts: DraftTree, accepted: int) -> None:
        """Take in that the first ``accepted`` tokens along one path of ``drafts`` were right."""

    def forget(self, seq: Sequence) -> None:
        """Drop what is known about a sequence that has ended."""
