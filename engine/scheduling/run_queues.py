"""Where every live sequence waits or runs."""

from collections import deque
from collections.abc import Iterator

from .sequence import Sequence, Status


class RunQueues:
    """Each live sequence is in exactly one of these.

    ``running``: advanced by every step, oldest first. ``ready``: hold pages and want to run, having
    been resumed or forked. ``returning``: hold none, having been preempted, or resumed after their
    pages went. ``waiting``: new. ``paused``: newest last.
    """

    def __init__(self) -> None:
        self.running: list[Sequence] = []
        self.ready: deque[Sequence] = deque()
        self.returning: deque[Sequence] = deque()
        self.waiting: deque[Sequence] = deque()
        self.paused: list[Sequence] = []

    @property
    def wanting(self) -> bool:
        """Whether any sequence wants to run."""
        return bool(self.running or self.ready or self.returning or self.waiting)

    def __iter__(self) -> Iterator[Sequence]:
        for queue in (self.running, self.ready, self.returning, self.waiting, self.paused):
            yield from queue

    def start(self, seq: Sequence) -> None:
        """Let a sequence that was taken out of its queue run."""
        seq.status = Status.RUNNING
        self.running.append(seq)

    def pause(self, seq: Sequence) -> None:
        self.running.remove(seq)
        seq.status = Status.PAUSED
        self.paused.append(seq)

    def unpause(self, seq: Sequence) -> None:
        self.paused.remove(seq)
        seq.status = Status.WAITING
        (self.ready if seq.holds_pages else self.returning).append(seq)

    def send_back(self, seq: Sequence) -> None:
        """A running or ready sequence lost its pages."""
        (self.running if seq in self.running else self.ready).remove(seq)
        seq.status = Status.WAITING
        self.returning.append(seq)

    def remove(self, seq: Sequence) -> None:
        for queue in (self.running, self.ready, self.returning, self.waiting, self.paused):
            if seq in queue:
                queue.remove(seq)

    def victim(self) -> Sequence | None:
        """Who gives pages back when nothing can run: the newest paused, else the newest other.

        The oldest of those that want to run keeps its pages, or nothing would ever move.
        """
        wanting = [seq for seq in (*self.running, *self.ready) if seq.holds_pages]
        for candidates in (self.paused, wanting[1:]):
            for seq in reversed(candidates):
                if seq.holds_pages:
                    return seq
        return None

    def check(self) -> None:
        """Assert that no sequence is queued twice or under another status."""
        waiting = [*self.ready, *self.returning, *self.waiting]
        assert all(seq.status is Status.RUNNING for seq in self.running)
        assert all(seq.status is Status.PAUSED for seq in self.paused)
        assert all(seq.status is Status.WAITING for seq in waiting)
        assert len(set(self)) == len(list(self)), "a sequence is queued twice"
        assert not any(seq.holds_pages for seq in (*self.returning, *self.waiting))
