"""How many tokens were drafted for an attempt, and how many of these drafts were right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class DraftCounts:
    """Counts of drafts by depth; empty if nothing was drafted.

    Attributes:
        drafted: number of steps in which the attempt had a draft at depth 1, 2, ...
        accepted: number of these drafts that were right.
    """

    def __init__(self) -> None:
        self.drafted: list[int] = []
        self.accepted: list[int] = []

    def add(self, drafted: int, accepted: int) -> None:
        """Count a step.

        Args:
            drafted: depth of the deepest draft.
            accepted: number of right drafts, which are the first ones of their path.
        """
        for counts, depth in ((self.drafted, drafted), (self.accepted, accepted)):
            counts += [0] * (drafted - len(counts))
            for index in range(depth):
                counts[index] += 1


def sum_drafts(records: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the drafts of several attempts together, as `drafted` and `accepted` by depth.

    Args:
        records: records of attempts; those of runs that did not count drafts have none.
    """
    found: dict[str, list[int]] = {"drafted": [], "accepted": []}
    for record in records:
        for name, counts in found.items():
            own = record.get(name, [])
            counts += [0] * (len(own) - len(counts))
            for depth, count in enumerate(own):
                counts[depth] += count
    return found


def drafts_text(drafts: Mapping[str, list[int]]) -> str:
    """Return one line for people; empty if nothing was drafted."""
    pairs = list(zip(drafts["drafted"], drafts["accepted"], strict=True))
    if not pairs:
        return ""
    shares = ", ".join(f"{accepted / max(1, drafted):.0%}" for drafted, accepted in pairs)
    return f"drafts: {sum(drafts['accepted'])} right; by depth {shares} of those made"
