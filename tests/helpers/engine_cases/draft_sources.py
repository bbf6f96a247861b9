"""Draft sources for tests: right, wrong and branching drafts at random."""

import random

from eightfold.engine.scheduling.draft_tree import NO_DRAFTS, DraftTree
from eightfold.engine.scheduling.sequence import Sequence

from .fake_engine import VOCABULARY, expected_token


class RandomDrafts:
    """Drafts for the fake engine: each is right with a given probability.

    Args:
        window: window of the fake engine.
        accuracy: probability that a draft is the token that its path really gives.
        most: most drafts of a sequence.
        branches: draft trees, else lines.
    """

    def __init__(self, seed: int, window: int, accuracy: float, most: int, branches: bool) -> None:
        self.random = random.Random(seed)
        self.window, self.accuracy, self.most, self.branches = window, accuracy, most, branches
        self.recorded = 0
        self.known: set[int] = set()

    def propose(self, sequences: list[Sequence], rooms: list[int]) -> list[DraftTree]:
        return [self._draft(seq, self.random.randint(0, self.most)) for seq in sequences]

    def _draft(self, seq: Sequence, count: int) -> DraftTree:
        if self.random.random() < 0.1:
            return NO_DRAFTS
        self.known.add(seq.id)
        paths = [list(seq.tokens)]
        tokens: list[int] = []
        parents: list[int] = []
        for _ in range(count):
            parent = self.random.randrange(len(paths)) if self.branches else len(paths) - 1
            token = self.random.randrange(VOCABULARY)
            if self.random.random() < self.accuracy:
                token = expected_token(seq.params.seed, paths[parent], self.window)
            if (parent, token) not in zip(parents, tokens, strict=True):
                tokens.append(token)
                parents.append(parent)
                paths.append([*paths[parent], token])
        return DraftTree(tuple(tokens), tuple(parents))

    def device_drafts(self, sequences: list[Sequence]) -> int:
        return 0

    def record(self, seq: Sequence, drafts: DraftTree, accepted: int) -> None:
        assert 0 <= accepted <= max(drafts.depths)
        self.recorded += accepted

    def forget(self, seq: Sequence) -> None:
        self.known.discard(seq.id)


class DeviceDrafts(RandomDrafts):
    """Lines of drafts, most of which the fake engine makes itself behind a step."""

    def __init__(self, seed: int, window: int, accuracy: float, most: int) -> None:
        super().__init__(seed, window, accuracy, most, branches=False)

    def device_drafts(self, sequences: list[Sequence]) -> int:
        return 0 if self.random.random() < 0.1 else min(3, self.most)

    def draft_behind(self, seed: int, tokens: list[int], count: int) -> list[int]:
        """Return the tokens that the device drafts behind ``tokens``."""
        path = list(tokens)
        for _ in range(count):
            right = self.random.random() < self.accuracy
            token = expected_token(seed, path, self.window)
            path.append(token if right else self.random.randrange(VOCABULARY))
        return path[len(tokens) :]
