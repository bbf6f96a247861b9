"""Chooses the tokens of one step, and who gives pages back where none is possible."""

from collections import deque

from .engine_counters import EngineCounters
from .page_tables import PageTables
from .run_queues import RunQueues
from .scheduled_step import PageCopy, ScheduledTokens
from .sequence import Sequence, Status


class StepPlanner:
    """Fills one step after another from the queues, as far as budget and pages go.

    Args:
        max_running: most sequences in one step.
        max_step_tokens: most tokens in one step.
        max_context: most tokens of one sequence.

    ``page_copies`` and ``freed_host_pages`` collect what is copied before the next step's forward.
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
        self.page_tables = page_tables
        self.queues = queues
        self.counters = counters
        self.max_running = max_running
        self.max_step_tokens = max_step_tokens
        self.max_context = max_context
        self.page_copies: list[PageCopy] = []
        self.freed_host_pages: list[tuple[int, int]] = []

    def build(self) -> list[ScheduledTokens]:
        """The tokens that can run now; none where pages are short or nothing wants to."""
        scheduled: list[ScheduledTokens] = []
        queues = self.queues
        running = [seq for seq in queues.running if self._plannable(seq)]
        decodes = [seq for seq in running if seq.work == 1]
        # A tool's long answer goes before a prompt that has not drawn anything.
        chunks = sorted((seq for seq in running if seq.work > 1), key=lambda seq: not seq.sampled)
        # Decodes first, then who wants to go on: a long prompt delays them by no more than its
        # chunk, which is what is left of the budget.
        budget = self._advance(decodes, self.max_step_tokens, scheduled)
        budget = self._start_ready(budget, scheduled)
        budget = self._advance(chunks, budget, scheduled)
        advanced = {entry.seq for entry in scheduled}
        short = budget and not advanced.issuperset(running)
        # Nobody new takes pages that one who holds some waits for.
        if not short and not queues.ready:
            for queue in (queues.returning, queues.waiting):
                budget = self._admit(queue, budget, scheduled)
                if queue and not all(seq.parent is not None for seq in queue):
                    break
        # The GPU's decode kernels take the leading rows.
        scheduled.sort(key=lambda entry: entry.count > 1)
        return scheduled

    def _advance(self, seqs: list[Sequence], budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Schedule running sequences in order; the budget left."""
        for seq in seqs:
            budget -= self._schedule(seq, budget, scheduled)
        return budget

    def _start_ready(self, budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Start sequences that hold pages, in order, as far as pages and budget go."""
        queues = self.queues
        while queues.ready and budget and len(queues.running) < self.max_running:
            seq = queues.ready[0]
            if seq.steps_in_flight:
                break  # paused and resumed within one step: what is in flight ends first
            used = self._schedule(seq, budget, scheduled)
            if not used:
                break
            budget -= used
            queues.start(queues.ready.popleft())
        return budget

    def _admit(self, queue: deque[Sequence], budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Start sequences without pages in order, as far as pages and budget go."""
        index = 0
        running = self.queues.running
        while index < len(queue) and budget and len(running) < self.max_running:
            seq = queue[index]
            if seq.parent is not None or seq.steps_in_flight:
                index += 1
                continue
            if not self._acquire(seq, alone=not (scheduled or running)):
                break
            used = self._schedule(seq, budget, scheduled)
            if not used:
                raise AssertionError(f"sequence {seq.id} was admitted without room")
            budget -= used
            del queue[index]
            self.queues.start(seq)
        return budget

    def _acquire(self, seq: Sequence, alone: bool) -> bool:
        """Get back what memory still knows of ``seq``, if all its known tokens then fit.

        The others keep a page each to grow into, so that admitting does not mean preempting.
        """
        reserve = 0 if alone else len(self.queues.running) + 1
        if seq.host_tables is not None:
            if not self.page_tables.fits(seq, seq.length, self.max_step_tokens, reserve):
                return False
            restored = self.page_tables.restore(seq)
            if restored is None:
                return False
            self.page_copies += restored[0]
            self.freed_host_pages += restored[1]
            self.counters.restored += 1
            return True
        self.page_tables.attach_prefix(seq)
        if self.page_tables.fits(seq, seq.length, self.max_step_tokens, reserve):
            self.counters.prefix_hit_tokens += seq.computed
            return True
        self.page_tables.release(seq)
        return False

    def _plannable(self, seq: Sequence) -> bool:
        """Whether the sequence has work that does not end with what is in flight already."""
        limit = seq.params.max_new_tokens
        ending = seq.pending and (
            seq.length >= self.max_context
            or (limit is not None and seq.sampled + seq.pending >= limit)
        )
        return seq.work > 0 and not ending

    def _schedule(self, seq: Sequence, budget: int, scheduled: list[ScheduledTokens]) -> int:
        """Add work for ``seq`` if budget and pages allow; the tokens added."""
        # Resumed with no new token, the last one is computed again for its logits.
        seq.computed = min(seq.computed, seq.length - 1)
        count = min(seq.work, budget)
        if count < 1 or not self.page_tables.grow(seq, seq.computed + count):
            return 0
        end = seq.computed + count
        scheduled.append(
            ScheduledTokens(
                seq=seq,
                start=seq.computed,
                count=count,
                samples=end == seq.length,
                carried=end > len(seq.tokens),
                epoch=seq.epoch,
            )
        )
        return count

    def reclaim(self) -> None:
        """Nothing can run for want of pages: one sequence gives its own back."""
        seq = self.queues.victim()
        if seq is None:
            raise AssertionError("no sequence can run though one alone must fit")
        self.give_back(seq)

    def give_back(self, seq: Sequence) -> None:
        """Take a sequence's pages; its KV goes to the host or is computed again when needed."""
        if seq.steps_in_flight:
            raise AssertionError(f"sequence {seq.id} is in flight and keeps its pages")
        copies = self.page_tables.offload(seq)
        if copies is None:
            self.page_tables.release(seq)
        else:
            self.page_copies += copies
            self.counters.offloaded += 1
        if seq.status is Status.PAUSED:
            self.counters.reclaimed += 1
        else:
            self.counters.preempted += 1
            self.queues.send_back(seq)
