"""Steps with drafts: what they carry, and what is kept of their draws."""

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

from ..draft_source import DraftSource
from ..draft_tree import UNKNOWN, DraftTree
from ..engine_counters import EngineCounters
from ..pages.page_tables import PageTables
from ..run_queues import RunQueues
from ..scheduled_step import ScheduledTokens, StepPlan
from ..sequence import Sequence

Draws = tuple[list[int], list[float]]
"""Drawn tokens and their entropies."""


class DraftSteps:
    """Adds drafts to steps, chains steps behind one another, and keeps what right drafts drew.

    Args:
        page_tables: page tables of all sequences.
        queues: queues of all sequences.
        counters: counters to update.
        max_running: maximum number of sequences in one step.
        max_step_tokens: maximum number of tokens in one step.
        max_context: maximum number of tokens of one sequence.
    """

    def __init__(
        self,
        page_tables: PageTables,
        queues: RunQueues,
        counters: EngineCounters,
        max_running: int,
        max_step_tokens: int,
        max_context: int,
    ) -> None:
        self._page_tables = page_tables
        self._queues = queues
        self._counters = counters
        self._max_running = max_running
        self._max_step_tokens = max_step_tokens
        self._max_context = max_context

    def add(self, scheduled: list[ScheduledTokens], source: DraftSource) -> list[ScheduledTokens]:
        """Return the entries of a step with drafts, as far as budget and pages allow.

        Only a step in which every sequence computes a single known token gets drafts.
        """
        if any(entry.count > 1 or entry.carried or not entry.samples for entry in scheduled):
            return scheduled
        sequences = [entry.seq for entry in scheduled]
        rooms = [self._room(seq) for seq in sequences]
        left = self._max_step_tokens - len(scheduled)
        found = []
        proposed = source.propose(sequences, rooms)
        for entry, room, drafts in zip(scheduled, rooms, proposed, strict=True):
            drafts = drafts.limited(room, left)
            # Pages for drafts are taken from nobody.
            if drafts and self._page_tables.grow(entry.seq, entry.start + 1 + len(drafts)):
                count = len(drafts)
                entry = ScheduledTokens(
                    entry.seq, entry.start, 1 + count, True, False, entry.epoch, drafts
                )
                left -= count
            found.append(entry)
        return found

    def chain(
        self, in_flight: SequenceOf[StepPlan], source: DraftSource | None
    ) -> list[ScheduledTokens]:
        """Return the entries of a step behind one in flight whose results are not known yet.

        Each sequence computes the newest token that the step in flight draws, and drafts that the
        device makes from there.

        Args:
            in_flight: steps in flight, oldest first.
            source: what proposes drafts, if anything.

        Returns:
            Nothing if another sequence could join or a running one has to stop, which only a step
            planned from results can take into account, or if pages are short.
        """
        queues, running = self._queues, self._queues.running
        if source is None or len(in_flight) != 1:
            return []
        before, count = in_flight[0], source.device_drafts(running)
        full = len(running) >= self._max_running
        joining = queues.ready or ((queues.returning or queues.waiting) and not full)
        sequences = [entry.seq for entry in before.scheduled]
        drafted = count and before.next_drafts == count
        if joining or not drafted or set(sequences) != set(running):
            return []
        if len(sequences) * (1 + count) > self._max_step_tokens or any(
            entry.epoch != entry.seq.epoch or not entry.drafts or self._room(entry.seq) < count
            for entry in before.scheduled
        ):
            return []
        drafts = DraftTree.line([UNKNOWN] * count)
        found = []
        for seq in sequences:
            moves = seq.drafts_in_flight
            if not self._page_tables.grow(seq, seq.computed + moves + 1 + count):
                return []
            found.append(
                ScheduledTokens(
                    seq, seq.computed, 1 + count, True, False, seq.epoch, drafts, may_move=moves
                )
            )
        return found

    def keep_drawn(
        self,
        entry: ScheduledTokens,
        tokens: list[int],
        entropies: list[float],
        counted: int | None,
        source: DraftSource | None,
    ) -> Draws:
        """Return the draws that follow from right drafts alone, which count as computed now.

        Args:
            entry: an entry of the step being committed, with drafts.
            tokens: drawn by each of its rows.
            entropies: of these draws.
            counted: number of right drafts, if the device has counted them.
            source: what proposed the drafts.
        """
        seq, drafts = entry.seq, entry.drafts
        rows = list(range((counted or 0) + 1))
        if counted is None:
            rows = drafts.kept_rows(tokens)
        accepted = len(rows) - 1
        self._counters.add_drafts(len(drafts), max(drafts.depths), accepted)
        # A sequence that was rewound, cancelled or paused meanwhile keeps what it had before.
        if entry.epoch == seq.epoch:
            seq.computed += accepted
            seq.max_computed = max(seq.max_computed, seq.computed)
            self._page_tables.keep_rows(seq, entry.start, rows)
            if source is not None:
                source.record(seq, drafts, accepted)
        return [tokens[row] for row in rows], [entropies[row] for row in rows]

    @staticmethod
    def move_later(entry: ScheduledTokens, accepted: int, later: Iterable[StepPlan]) -> None:
        """Give the entry of a step behind the one being committed its true position.

        Args:
            entry: an entry of the step being committed.
            accepted: number of its right drafts.
            later: steps that are still in flight.
        """
        for plan in later:
            for index, other in enumerate(plan.scheduled):
                if other.seq is entry.seq and other.may_move:
                    moved = replace(other, start=other.start + accepted, may_move=0)
                    plan.scheduled[index] = moved

    @staticmethod
    def drop_behind(seq: Sequence, dropped: int, *, ends: bool) -> None:
        """Let what right drafts wrote behind a sequence's tokens no longer count as computed.

        Args:
            seq: a sequence that has just got tokens of a step with drafts.
            dropped: tokens that right drafts drew and that are left out.
            ends: True if it pauses or finishes. A running sequence has one token to compute, if no
                other step in flight computes it.
        """
        if dropped and not ends:  # a step in flight goes on from what was left out
            seq.epoch += 1
            seq.pending = 0
        known = len(seq.tokens) + (0 if ends else seq.pending - 1)
        seq.computed = min(seq.computed, known)
        seq.max_computed = min(seq.max_computed, len(seq.tokens))

    def _room(self, seq: Sequence) -> int:
        """Return how many tokens ``seq`` may draw beside the next one, whatever is in flight.

        The last token that its limits allow is not among them: it finishes the sequence, so behind
        others it would be left to a step that computes the token before it again.
        """
        ahead = seq.pending + seq.drafts_in_flight
        room = self._max_context - len(seq.tokens) - ahead
        if seq.params.max_new_tokens is not None:
            room = min(room, seq.params.max_new_tokens - seq.sampled - ahead)
        return max(0, room - 2)
