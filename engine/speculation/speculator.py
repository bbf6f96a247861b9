"""Speculation as the scheduler sees it: a drafter, and the decision how many of its drafts pay."""

import time

from ..execution.draft_chain import DeviceDrafter
from ..execution.runner_limits import MAX_DRAFT_STEP_ROWS, padded_rows
from ..scheduling.draft_tree import NO_DRAFTS, DraftTree
from ..scheduling.sequence import Sequence
from .acceptance_rates import AcceptanceRates
from .draft_budget import DraftBudget
from .drafter import Draft, Drafter
from .step_costs import StepCosts

# After so many steps in a row in which no draft paid, nothing is drafted for a while: at first for
# the smaller number of steps, then for twice as many each time.
TRIES, FIRST_REST, LONGEST_REST = 4, 64, 512
SMOOTHING = 0.1  # weight of a new measurement of the overhead


class Speculator:
    """Asks a drafter for drafts as long as they pay; a ``DraftSource``.

    Args:
        drafter: what drafts.
        costs: seconds of a step by rows; ``None`` verifies every draft, whatever it costs.
        max_drafts: most drafts of a sequence in a step.
        uniform: True if all sequences of a step have the same power of two of rows.
    """

    def __init__(
        self, drafter: Drafter, costs: StepCosts | None, max_drafts: int, uniform: bool
    ) -> None:
        self.drafter = drafter
        self.costs = costs
        self._on_device = isinstance(drafter, DeviceDrafter)
        self._max_drafts = max_drafts
        self._uniform = uniform
        self._budget = None if costs is None else DraftBudget(costs, uniform)
        self._rates = AcceptanceRates()
        self._promised: dict[int, list[float]] = {}  # chances of the last drafts of a sequence
        self._overhead = 0.0  # seconds that drafts add to a step
        self._drafting = 0.0  # seconds that the drafter took for the step being planned
        self._vain = 0  # steps in a row in which no draft paid
        self._rest = self._next_rest = 0

    @property
    def active(self) -> bool:
        """True if the next step may have drafts."""
        return not self._rest

    def summary(self) -> str:
        """Return the drafter and what steps cost, for the start-up table."""
        costs = "always verified" if self.costs is None else f"steps of {self.costs.summary()}"
        return f"{self.drafter.name}, up to {self._max_drafts}; {costs}"

    def propose(self, sequences: list[Sequence], rooms: list[int]) -> list[DraftTree]:
        """Return the drafts of each sequence that are worth verifying (see ``DraftSource``)."""
        none = [NO_DRAFTS] * len(sequences)
        most = min(self._max_drafts, self._most_drafts(len(sequences)))
        if self._rest or not most or max(rooms) < 1:
            return none
        if self._budget is not None and not self.drafter.gives_chances:
            expected = Draft(DraftTree.line([0] * most))
            most = max(self._affordable(sequences, [expected] * len(sequences)))
            if not most:
                return none
        began = time.perf_counter()
        drafts = self.drafter.draft(sequences, most)
        counts = [len(draft.tree) for draft in drafts]
        if self._budget is not None and self.drafter.gives_chances:
            counts = self._affordable(sequences, drafts)
        self._drafting = time.perf_counter() - began
        found = []
        for seq, draft, count in zip(sequences, drafts, counts, strict=True):
            self._promised[seq.id] = self._rates.raw_chances(draft)
            found.append(draft.tree.limited(len(draft.tree), count))
        return found

    def device_drafts(self, sequences: list[Sequence]) -> int:
        """Return how many drafts the device should make behind a step (see ``DraftSource``).

        One fewer than a power of two, so that the next step has no padding.
        """
        if self._rest or not self._on_device:
            return 0
        most = min(self._max_drafts, self._most_drafts(len(sequences)))
        if most < 1:
            return 0
        if self._budget is not None:
            expected = Draft(DraftTree.line([0] * most))
            most = max(self._counts(sequences, [expected] * len(sequences)))
        return (1 << (most + 1).bit_length() - 1) - 1

    def _most_drafts(self, sequences: int) -> int:
        """Return the most drafts of a sequence that a step of so many could hold."""
        if self._budget is not None:
            return self._budget.most_drafts(sequences)
        if not self._uniform:
            return self._max_drafts
        return max(0, MAX_DRAFT_STEP_ROWS // padded_rows(sequences) - 1)

    def _affordable(self, sequences: list[Sequence], drafts: list[Draft]) -> list[int]:
        """Return how many drafts of each sequence pay."""
        counts = self._counts(sequences, drafts)
        self._count_vain(any(counts))
        return counts

    def _counts(self, sequences: list[Sequence], drafts: list[Draft]) -> list[int]:
        assert self._budget is not None
        chances = [
            self._rates.chances(seq.id, draft) for seq, draft in zip(sequences, drafts, strict=True)
        ]
        return self._budget.counts(chances, self._overhead)

    def record(self, seq: Sequence, drafts: DraftTree, accepted: int) -> None:
        """Learn from the drafts of a step (see ``DraftSource``)."""
        chances = self._promised.pop(seq.id, None)
        if chances is None:  # the device drafted by itself
            chances = self._rates.raw_chances(Draft(drafts))
        self._rates.record(seq.id, drafts, sum(chances[: len(drafts)]), accepted)

    def forget(self, seq: Sequence) -> None:
        """Drop what is known about a sequence that has ended (see ``DraftSource``)."""
        self.drafter.forget(seq)
        self._rates.forget(seq.id)
        self._promised.pop(seq.id, None)

    def measure_drafting(self, seconds: float) -> None:
        """Take in how long the device took for the drafts behind a step; 0.0 for unknown."""
        if seconds:
            self._overhead += SMOOTHING * (seconds - self._overhead)

    def end_step(self, running: list[Sequence], idle: float | None) -> None:
        """Let the drafter take in tokens, while the step that was just launched runs.

        Args:
            idle: seconds for which the device had to wait for this step; ``None`` if it did not
                wait, so that drafting alone took time.
        """
        if self._drafting:
            seconds = self._drafting if idle is None else idle
            self._overhead += SMOOTHING * (seconds - self._overhead)
            self._drafting = 0.0
        self.drafter.observe(running)
        self._rest = max(0, self._rest - 1)

    def _count_vain(self, paid: bool) -> None:
        self._vain = 0 if paid else self._vain + 1
        if paid:
            self._next_rest = 0
        elif self._vain >= TRIES:
            self._next_rest = min(max(FIRST_REST, 2 * self._next_rest), LONGEST_REST)
            self._rest, self._vain = self._next_rest, 0
