"""Chooses which tokens of which sequences the next step computes."""

from collections import deque

from .engine_counters import EngineCounters
from .pages.page_tables import PageTables
from .run_queues import RunQueues
from .scheduled_step import ScheduledTokens
from .sequence import Sequence


class StepPlanner:
    """Fills one step after another from the queues, as far as token budget and pages allow.

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

    def choose_tokens(self) -> list[ScheduledTokens]:
        """Return the tokens of the next step, and give their sequences the pages for them.

        The list is empty if pages are short or no sequence can advance.
        """
        scheduled: list[ScheduledTokens] = []
        queues = self._queues
        decodes, chunks = self._running_by_kind()
        # A resumed sequence with a long tool output goes before a prompt without sampled tokens.
        chunks.sort(key=lambda seq: not seq.sampled)
        # Decodes first, then sequences that wait to go on. A long prompt gets what is left of the
        # budget as its chunk, so it delays them by no more than that.
        budget = self._advance(decodes, self._max_step_tokens, scheduled)
        singles, started = len(scheduled), len(queues.running)
        budget = self._start_ready(budget, scheduled)
        started = len(queues.running) - started
        budget = self._advance(chunks, budget, scheduled)
        pages_short = budget and len(scheduled) - started < len(decodes) + len(chunks)
        # No new sequence takes pages while one that already holds some waits for more.
        if not pages_short and not queues.ready:
            for queue in (queues.returning, queues.waiting):
                budget = self._admit(queue, budget, scheduled)
                # A sequence that does not fit holds up those behind it, but a fork that waits for
                # its parent does not.
                if queue and not all(seq.parent is not None for seq in queue):
                    break
        if len(scheduled) > singles:
            # The GPU's decode kernels take the leading rows.
            scheduled.sort(key=lambda entry: entry.count > 1)
        return scheduled

    def _running_by_kind(self) -> tuple[list[Sequence], list[Sequence]]:
        """Return the running sequences that can advance: those with a single token, and others.

        One that finishes with the tokens in flight cannot, nor one with drafts in flight, whose
        next position is unknown. This runs for each sequence in each step, so that properties of
        sequences are written out here.
        """
        decodes: list[Sequence] = []
        chunks: list[Sequence] = []
        for seq in self._queues.running:
            left = len(seq.tokens) + seq.pending - seq.computed
            if left > 0 and not seq.drafts_in_flight and not (seq.pending and self._ends(seq)):
                (decodes if left == 1 else chunks).append(seq)
        return decodes, chunks

    def _ends(self, seq: Sequence) -> bool:
        """Return whether ``seq``, which has tokens in flight, finishes with them."""
        limit = seq.params.max_new_tokens
        return len(seq.tokens) + seq.pending >= self._max_context or (
            limit is not None and seq.sampled + seq.pending >= limit
        )

    def _advance(self, seqs: list[Sequence], budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Schedule running sequences in order and return the remaining budget."""
        for seq in seqs:
            budget -= self._schedule(seq, budget, scheduled)
        return budget

    def _start_ready(self, budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Start sequences that hold pages, in order, and return the remaining budget."""
        queues = self._queues
        while queues.ready and budget and len(queues.running) < self._max_running:
            seq = queues.ready[0]
            if seq.steps_in_flight:
                break  # paused and resumed within one step, which must end first
            used = self._schedule(seq, budget, scheduled)
            if not used:
                break
            budget -= used
            queues.start(queues.ready.popleft())
        return budget

    def _admit(self, queue: deque[Sequence], budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Start sequences that hold no pages, in order, and return the remaining budget."""
        index = 0
        running = self._queues.running
        while index < len(queue) and budget and len(running) < self._max_running:
            seq = queue[index]
            if seq.parent is not None or seq.steps_in_flight:
                index += 1
                continue
            if not self._recover_pages(seq, alone=not (scheduled or running)):
                break
            used = self._schedule(seq, budget, scheduled)
            if not used:
                raise AssertionError(f"sequence {seq.id} was admitted without room")
            budget -= used
            del queue[index]
            self._queues.start(seq)
        return budget

    def _recover_pages(self, seq: Sequence, alone: bool) -> bool:
        """Restore or look up the pages of ``seq`` that still exist, if all its tokens then fit.

        One page for it and for each running sequence must be left over to grow into, so that an
        admitted sequence does not cause a preemption at once.
        """
        reserve = 0 if alone else len(self._queues.running) + 1
        tables = self._page_tables
        if seq.host_tables is not None:
            if not tables.can_grow(seq, seq.length, self._max_step_tokens, reserve):
                return False
            if not tables.host.restore(seq):
                return False
            self._counters.restored += 1
            return True
        tables.prefix_cache.attach(seq)
        if tables.can_grow(seq, seq.length, self._max_step_tokens, reserve):
            self._counters.prefix_hit_tokens += seq.computed
            return True
        tables.release(seq)
        return False

    def _schedule(self, seq: Sequence, budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Schedule tokens of ``seq`` if budget and pages allow, and return their number."""
        known = len(seq.tokens)
        length = known + seq.pending
        # A sequence resumed without new tokens computes its last one again, for its logits.
        start = seq.computed = min(seq.computed, length - 1)
        count = min(length - start, budget)
        end = start + count
        if count < 1 or not self._page_tables.grow(seq, end):
            return 0
        # The sequence, start, count, samples, carried, epoch.
        scheduled.append(ScheduledTokens(seq, start, count, end == length, end > known, seq.epoch))
        return count
