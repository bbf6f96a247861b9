"""The queues in which every live sequence waits, runs or is paused."""

from collections import deque
from collections.abc import Iterator

from .sequence import Sequence, SequenceStatus


class RunQueues:
    """Queues of live sequences; each sequence is in exactly one of them.

    Attributes:
        running: sequences that every step advances, oldest first.
        ready: sequences that hold pages and wait to run, because they were resumed or forked.
        returning: sequences without pages that were preempted, or resumed after they had lost them.
        waiting: new sequences.
        paused: paused sequences, most recently paused last.
    """

    def __init__(self) -> None:
        self.running: list[Sequence] = []
        self.ready: deque[Sequence] = deque()
        self.returning: deque[Sequence] = deque()
        self.waiting: deque[Sequence] = deque()
        self.paused: list[Sequence] = []

    @property
    def has_runnable(self) -> bool:
        """True if any sequence runs or waits to run."""
        return bool(self.running or self.ready or self.returning or self.waiting)

    def __iter__(self) -> Iterator[Sequence]:
        for queue in (self.running, self.ready, self.returning, self.waiting, self.paused):
            yield from queue

    def start(self, seq: Sequence) -> None:
        """Append a sequence that was taken from its queue to the running ones."""
        seq.status = SequenceStatus.RUNNING
        self.running.append(seq)

    def pause(self, seq: Sequence) -> None:
        """Move a sequence of any queue to the paused ones."""
        self.remove(seq)
        seq.status = SequenceStatus.PAUSED
        self.paused.append(seq)

    def resume(self, seq: Sequence) -> None:
        """Move a paused sequence to the ready ones, or to the returning ones without pages."""
        self.paused.remove(seq)
        seq.status = SequenceStatus.WAITING
        (self.ready if seq.holds_pages else self.returning).append(seq)

    def requeue(self, seq: Sequence) -> None:
        """Move a running or ready sequence that lost its pages to the returning ones."""
        (self.running if seq in self.running else self.ready).remove(seq)
        seq.status = SequenceStatus.WAITING
        self.returning.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Take a sequence out of its queue."""
        for queue in (self.running, self.ready, self.returning, self.waiting, self.paused):
            if seq in queue:
                queue.remove(seq)

    def check(self) -> None:
        """Assert that each sequence is queued once and has the status of its queue."""
        waiting = [*self.ready, *self.returning, *self.waiting]
        assert all(seq.status is SequenceStatus.RUNNING for seq in self.running)
        assert all(seq.status is SequenceStatus.PAUSED for seq in self.paused)
        assert all(seq.status is SequenceStatus.WAITING for seq in waiting)
        assert len(set(self)) == len(list(self)), "a sequence is queued twice"
        assert not any(seq.holds_pages for seq in (*self.returning, *self.waiting))
