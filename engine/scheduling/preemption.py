"""Preemption: which sequence loses its pages when a pool is full, and what becomes of its KV."""

from .engine_counters import EngineCounters
from .pages.page_tables import PageTables
from .run_queues import RunQueues
from .sequence import Sequence, SequenceStatus


class Preemption:
    """Takes pages from sequences when nothing can run without more pages.

    Args:
        page_tables: page tables of all sequences.
        queues: queues of all sequences.
        counters: counters to update.
    """

    def __init__(
        self, page_tables: PageTables, queues: RunQueues, counters: EngineCounters
    ) -> None:
        self._page_tables = page_tables
        self._queues = queues
        self._counters = counters

    def choose_victim(self) -> Sequence | None:
        """Return the sequence to preempt, or ``None`` if there is none.

        The most recently paused sequence that holds pages goes first. If there is none, the last of
        the running and ready sequences goes. The first of these keeps its pages: otherwise no
        sequence might ever finish.
        """
        runnable = (*self._queues.running, *self._queues.ready)
        holders = [seq for seq in runnable if seq.holds_pages]
        for candidates in (self._queues.paused, holders[1:]):
            for seq in reversed(candidates):
                if seq.holds_pages:
                    return seq
        return None

    def preempt_one(self) -> None:
        """Preempt the sequence that :meth:`choose_victim` returns."""
        seq = self.choose_victim()
        if seq is None:
            raise AssertionError("no sequence can run, although one alone must fit")
        self.preempt(seq)

    def preempt(self, seq: Sequence) -> None:
        """Take all pages of ``seq``.

        Its KV is offloaded to the host if there is room. Otherwise it is recomputed when the
        sequence runs again.
        """
        if seq.steps_in_flight:
            raise AssertionError(f"sequence {seq.id} is in flight and keeps its pages")
        if self._page_tables.host.offload(seq):
            self._counters.offloaded += 1
        else:
            self._page_tables.release(seq)
        if seq.status is SequenceStatus.PAUSED:
            self._counters.reclaimed += 1
        else:
            self._counters.preempted += 1
            self._queues.requeue(seq)
