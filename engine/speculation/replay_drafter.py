"""Drafts that repeat recorded tokens: a double for tests, and the most that drafts can give."""

from ..scheduling.draft_tree import DraftTree
from ..scheduling.sequence import Sequence
from .drafter import Draft


class ReplayDrafter:
    """Proposes the tokens that a recorded run had at the same positions.

    Args:
        records: tokens of recorded sequences, prompts included, by prompt and seed.
        acceptance: for each depth, the probability that a draft is the recorded token if those
            before it are; others are wrong on purpose. Empty for all right.
        vocabulary: number of tokens.
    """

    name = "replay"
    branches = False
    gives_chances = False

    def __init__(
        self,
        records: dict[tuple[tuple[int, ...], int], list[int]],
        vocabulary: int,
        acceptance: tuple[float, ...] = (),
    ) -> None:
        self._records = records
        self._vocabulary = vocabulary
        self._acceptance = acceptance
        self._record_of: dict[int, list[int]] = {}

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return the next ``count`` recorded tokens of each sequence, thinned."""
        return [self._draft(seq, count) for seq in sequences]

    def observe(self, sequences: list[Sequence]) -> None:
        """Find the record of each sequence."""
        for seq in sequences:
            if seq.id not in self._record_of:
                key = (tuple(seq.tokens[: seq.prompt_length]), seq.params.seed)
                self._record_of[seq.id] = self._records.get(key, [])

    def forget(self, seq: Sequence) -> None:
        """Forget which record belongs to the sequence."""
        self._record_of.pop(seq.id, None)

    def _draft(self, seq: Sequence, count: int) -> Draft:
        begin = len(seq.tokens)
        tokens = list(self._record_of.get(seq.id, [])[begin : begin + count])
        depth = self.wrong_depth(seq.params.seed, begin, len(tokens))
        if depth < len(tokens):
            tokens[depth] = (tokens[depth] + 1) % self._vocabulary
        return Draft(DraftTree.line(tokens))

    def wrong_depth(self, seed: int, begin: int, count: int) -> int:
        """Return which of ``count`` drafts from position ``begin`` on is wrong on purpose.

        ``count`` if none is.
        """
        if not self._acceptance:
            return count
        for depth in range(count):
            chance = self._acceptance[depth] if depth < len(self._acceptance) else 0.0
            if _uniform(seed, begin, depth) >= chance:
                return depth
        return count


def _uniform(seed: int, position: int, depth: int) -> float:
    """Return a number in [0, 1) that depends on all three (the finalizer of SplitMix64)."""
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + depth + 1) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) & mask
    return ((x ^ (x >> 31)) >> 11) / (1 << 53)
