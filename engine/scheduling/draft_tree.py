"""Drafted tokens of one sequence in one step, and which of them the step's draws confirm."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DraftTree:
    """Guesses of the tokens that follow a sequence's newest token, the root.

    Rows number the tokens that a step computes for the sequence: row 0 is the root, row ``i + 1``
    is draft ``i``. A line of drafts is a tree in which each row follows the one before it.

    Attributes:
        tokens: the drafts; no two of them with the same parent are equal.
        parents: row that each draft follows, an earlier row.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    _depths: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    @staticmethod
    def line(tokens: Sequence[int]) -> "DraftTree":
        """Return drafts that follow one another."""
        return DraftTree(tuple(tokens), tuple(range(len(tokens))))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> list[int]:
        """Distance of each row from the root: 0 for the root, then one entry for each draft."""
        depths = self._depths
        if not depths:  # computed once: each step asks for them several times
            depths.append(0)
            for parent in self.parents:
                depths.append(depths[parent] + 1)
        return depths

    @property
    def is_line(self) -> bool:
        """True if each row follows the one before it."""
        return self.depths[-1] == len(self.tokens)

    def path(self, row: int) -> list[int]:
        """Return the rows from the root to ``row``, both included."""
        rows = [row]
        while rows[-1]:
            rows.append(self.parents[rows[-1] - 1])
        return rows[::-1]

    def kept_rows(self, draws: Sequence[int]) -> list[int]:
        """Return the rows whose draws are tokens of the sequence.

        Row r draws the token that follows r. The root's draw always counts. If it equals a draft
        that follows the root, that draft's own draw counts as well, and so on: each token kept is
        one that a step without drafts would have drawn.

        Args:
            draws: one token for each row.
        """
        rows = [0]
        for row, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True), 1):
            if parent == rows[-1] and token == draws[parent]:
                rows.append(row)
        return rows

    def limited(self, depth: int, count: int) -> "DraftTree":
        """Return the first ``count`` drafts that are no deeper than ``depth``."""
        depths = self.depths
        if count >= len(self.tokens) and depth >= max(depths):
            return self
        kept = [row for row in range(1, len(depths)) if depths[row] <= depth][:count]
        row_of = {0: 0} | {row: new for new, row in enumerate(kept, 1)}
        kept = [row for row in kept if self.parents[row - 1] in row_of]
        return DraftTree(
            tuple(self.tokens[row - 1] for row in kept),
            tuple(row_of[self.parents[row - 1]] for row in kept),
        )

    def check(self) -> None:
        """Assert that parents come before their children and siblings differ."""
        assert len(self.tokens) == len(self.parents), "a draft has no parent"
        assert all(0 <= parent <= i for i, parent in enumerate(self.parents)), "a parent comes late"
        edges = set(zip(self.parents, self.tokens, strict=True))
        assert len(edges) == len(self.tokens), "two drafts of one parent are equal"


NO_DRAFTS = DraftTree((), ())
UNKNOWN = 0  # stands for a draft that only the device knows
