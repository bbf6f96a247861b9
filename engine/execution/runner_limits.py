"""Sizes that a runner is made for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Largest step and longest sequence of a runner.

    Attributes:
        max_running: sequences in a step.
        max_step_tokens: tokens in a step, of all sequences together.
        max_context: tokens of a sequence.
    """

    max_running: int
    max_step_tokens: int
    max_context: int

    @property
    def decode_rows(self) -> int:
        """Rows of the largest step of single tokens, padding included."""
        return padded_rows(self.max_running)

    @property
    def decode_sizes(self) -> list[int]:
        """Numbers of rows that steps of single tokens have, largest first."""
        return [1 << i for i in reversed(range(self.decode_rows.bit_length()))]

    @property
    def rows(self) -> int:
        """Rows of the largest step, padding included."""
        return max(self.decode_rows, -(-self.max_step_tokens // 16) * 16)


def padded_rows(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()
