"""Rewinds: how a sequence gives up its last tokens, at once or when its steps have ended."""

from .engine_counters import EngineCounters
from .pages.page_tables import PageTables
from .run_queues import RunQueues
from .sequence import Sequence


class Rewinds:
    """Takes tokens from sequences, and pauses them.

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

    def begin(self, seq: Sequence, length: int) -> None:
        """Drop the tokens of a live sequence from position ``length`` on, and pause it.

        Raises:
            ValueError: if the sequence has fewer than ``length`` tokens or none would be left.
        """
        if not 1 <= length <= len(seq.tokens):
            raise ValueError(
                f"Sequence {seq.id} has {len(seq.tokens)} tokens and can be rewound to 1 to "
                f"{len(seq.tokens)} of them, not to {length}."
            )
        self._counters.rewinds += 1
        self._counters.rewound_tokens += len(seq.tokens) - length
        del seq.tokens[length:], seq.page_keys[length // self._page_tables.page_size :]
        seq.prompt_length = min(seq.prompt_length, length)
        seq.max_computed = min(seq.max_computed, length)
        seq.epoch += 1
        seq.pending = 0
        seq.parent = None
        for child in self._queues.waiting:  # the tokens that it waits for will not be computed
            if child.parent == seq.id and child.fork_length - 1 > length:
                child.parent = None
        self._queues.pause(seq)
        seq.rewind_length = min(length, seq.rewind_length or length)
        self.end(seq)

    def end(self, seq: Sequence) -> None:
        """Give back what a rewind took away, once no step in flight writes it."""
        if seq.rewind_length is None:
            return
        seq.computed = min(seq.computed, seq.rewind_length + seq.tokens_in_flight)
        if not seq.steps_in_flight:
            self._page_tables.truncate(seq, seq.rewind_length)
            if seq in self._queues.ready and not seq.holds_pages:
                self._queues.requeue(seq)
