"""Sizes that a runner is made for."""

from dataclasses import dataclass

# Rows of the largest step with drafts: more would take other kernels, which read weights slower.
MAX_DRAFT_STEP_ROWS = 64


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Largest step and longest sequence of a runner.

    Attributes:
        max_running: sequences in a step.
        max_step_tokens: tokens in a step, of all sequences together.
        max_context: tokens of a sequence.
        max_drafts: drafts of a sequence in a step.
    """

    max_running: int
    max_step_tokens: int
    max_context: int
    max_drafts: int = 0

    @property
    def decode_rows(self) -> int:
        """Rows of the largest step that samples in all rows, padding included."""
        return max(sequences * rows for sequences, rows in self.decode_sizes)

    @property
    def decode_sizes(self) -> list[tuple[int, int]]:
        """Sequences, and rows of each, of the steps of single tokens and their drafts.

        Largest first.
        """
        singles = [1 << i for i in reversed(range(padded_rows(self.max_running).bit_length()))]
        most = padded_rows(1 + self.max_drafts)
        drafted = [
            (sequences, 1 << i)
            for i in reversed(range(1, most.bit_length()))
            for sequences in singles
            if sequences << i <= MAX_DRAFT_STEP_ROWS
        ]
        return [*drafted, *((sequences, 1) for sequences in singles)]

    @property
    def rows(self) -> int:
        """Rows of the largest step, padding included."""
        return max(self.decode_rows, -(-self.max_step_tokens // 16) * 16)


def padded_rows(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()
