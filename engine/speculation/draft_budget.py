"""How many drafts pay: the expected tokens of a step, divided by what it costs."""

from ..execution.runner_limits import padded_rows
from .step_costs import StepCosts

MARGIN = 1.02  # drafts must promise this many times the speed of a step without


class DraftBudget:
    """Chooses how many drafts of each sequence a step verifies.

    As in EAGLE-4's cost-sized trees and in Sequoia (Chen et al., arXiv 2402.12374), the choice
    maximizes expected tokens a second, with costs that were measured on this machine.

    Args:
        costs: seconds of a step by rows.
        uniform: True if all sequences of a step have the same power of two of rows.
    """

    def __init__(self, costs: StepCosts, uniform: bool) -> None:
        self._costs = costs
        self._uniform = uniform

    def most_drafts(self, sequences: int) -> int:
        """Return how many drafts of a sequence could be verified at most."""
        return max(0, self._costs.most_rows // padded_rows(sequences) - 1)

    def counts(self, chances: list[list[float]], overhead: float) -> list[int]:
        """Return how many of each sequence's drafts to verify.

        Args:
            chances: of the drafts of each sequence; no draft is likelier than the one before it.
            overhead: seconds that drafting adds to a step.
        """
        count = len(chances)
        least = MARGIN * count / self._costs.seconds(self._rows(count, 1))
        best, chosen = least, [0] * count
        options = self._uniform_options(chances) if self._uniform else self._greedy_options(chances)
        for gain, rows, counts in options:
            rate = (count + gain) / (self._costs.seconds(rows) + overhead)
            if rate > best:
                best, chosen = rate, counts
        return chosen

    def _rows(self, sequences: int, rows: int) -> int:
        return padded_rows(sequences) * rows if self._uniform else sequences * rows

    def _uniform_options(self, chances: list[list[float]]) -> list[tuple[float, int, list[int]]]:
        """Return expected drafts, rows and counts if each sequence has the same number of rows."""
        options = []
        rows = 2
        while self._rows(len(chances), rows) <= self._costs.most_rows:
            counts = [min(rows - 1, len(own)) for own in chances]
            gain = sum(sum(own[: rows - 1]) for own in chances)
            options.append((gain, self._rows(len(chances), rows), counts))
            rows *= 2
        return options

    def _greedy_options(self, chances: list[list[float]]) -> list[tuple[float, int, list[int]]]:
        """Return the same for every number of rows, the likeliest drafts of all first."""
        order = sorted((-chance, seq) for seq, own in enumerate(chances) for chance in own)[
            : max(0, self._costs.most_rows - len(chances))
        ]
        options, counts, gain = [], [0] * len(chances), 0.0
        for negated, seq in order:
            counts[seq] += 1
            gain -= negated
            options.append((gain, len(chances) + sum(counts), list(counts)))
        return options
