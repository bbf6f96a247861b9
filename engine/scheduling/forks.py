"""Forks: how a sequence's copies receive the pages of their original."""

from collections.abc import Mapping

from .engine_counters import EngineCounters
from .pages.page_tables import PageTables
from .run_queues import RunQueues
from .sequence import Sequence, SequenceStatus


class Forks:
    """Gives forks the pages of their original.

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

    def attach(self, child: Sequence, parent: Sequence) -> bool:
        """Give ``child`` the pages of ``parent``, and return whether that was possible."""
        if not self._page_tables.attach_fork(child, parent):
            return False
        child.parent = None
        self._counters.forked_tokens += child.computed
        return True

    def attach_waiting(self, sequences: Mapping[int, Sequence]) -> None:
        """Give waiting forks the pages of their original, or detach those that can get none.

        Args:
            sequences: all live sequences by number.
        """
        for child in [seq for seq in self._queues.waiting if seq.parent is not None]:
            parent = sequences.get(child.parent) if child.parent is not None else None
            running = parent is not None and parent.status is SequenceStatus.RUNNING
            if parent is not None and self.attach(child, parent):
                self._queues.waiting.remove(child)
                self._queues.ready.append(child)
            elif parent is None or not (running or parent.status is SequenceStatus.WAITING):
                child.parent = None
            elif running and parent.computed >= child.fork_length - 1:
                # The pages fell behind the parent's window, or there is no page for the copy.
                child.parent = None
