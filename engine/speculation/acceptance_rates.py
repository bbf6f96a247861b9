"""Running acceptance: how often drafts of each depth and of each sequence turn out right."""

from ..scheduling.draft_tree import DraftTree
from .drafter import Draft

DECAY = 0.95  # weight that a step keeps after the next one
PRIOR_STEPS = 4.0  # weight, in steps, of what is expected before anything is known
PRIOR_CHANCE = 0.7  # that a draft is right if those before it are


class AcceptanceRates:
    """Estimates the chance of each draft.

    A drafter that gives chances itself is believed up to a factor for each sequence: what it
    promised lately, against what came true. For others, the chance of a depth is the product of
    the rates up to it, over all sequences, with the same factor.
    """

    def __init__(self) -> None:
        self._depths: list[tuple[float, float]] = []  # accepted and drafted, decayed
        self._sequences: dict[int, tuple[float, float]] = {}  # accepted and promised, decayed

    def chances(self, seq: int, draft: Draft) -> list[float]:
        """Return the chance of each draft of a sequence."""
        accepted, promised = self._sequences.get(seq, (0.0, 0.0))
        factor = (accepted + PRIOR_STEPS) / (promised + PRIOR_STEPS)
        if draft.chances is not None:
            return [min(1.0, chance * factor) for chance in draft.chances]
        by_depth = [1.0]
        for depth in range(1, max(draft.tree.depths) + 1):
            by_depth.append(by_depth[-1] * min(1.0, self._rate(depth)))
        return [by_depth[depth] * min(1.0, factor) for depth in draft.tree.depths[1:]]

    def record(self, seq: int, drafts: DraftTree, promised: float, accepted: int) -> None:
        """Take in a step's result.

        Args:
            promised: sum of the chances of the drafts, before the sequence's factor.
        """
        old_accepted, old_promised = self._sequences.get(seq, (0.0, 0.0))
        self._sequences[seq] = (old_accepted * DECAY + accepted, old_promised * DECAY + promised)
        deepest = max(drafts.depths)
        self._depths += [(0.0, 0.0)] * (deepest - len(self._depths))
        for index in range(min(deepest, accepted + 1)):
            hits, tries = self._depths[index]
            self._depths[index] = (hits * DECAY + (index < accepted), tries * DECAY + 1)

    def raw_chances(self, draft: Draft) -> list[float]:
        """Return the chance of each draft before the sequence's factor."""
        if draft.chances is not None:
            return list(draft.chances)
        by_depth = [1.0]
        for depth in range(1, max(draft.tree.depths) + 1):
            by_depth.append(by_depth[-1] * self._rate(depth))
        return [by_depth[depth] for depth in draft.tree.depths[1:]]

    def forget(self, seq: int) -> None:
        """Drop what is known about a sequence."""
        self._sequences.pop(seq, None)

    def _rate(self, depth: int) -> float:
        """Return the chance of a draft at ``depth`` if those before it are right."""
        hits, tries = self._depths[depth - 1] if depth <= len(self._depths) else (0.0, 0.0)
        return (hits + PRIOR_CHANCE * PRIOR_STEPS) / (tries + PRIOR_STEPS)
