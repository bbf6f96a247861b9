"""One sequence: its tokens, what of them is computed, and the pages that hold it."""

from dataclasses import dataclass, field
from enum import Enum

from ..engine_config import SamplingParams

FREED = -1  # in a page table: the page lay behind the window and was given back


class Status(Enum):
    WAITING = "waiting"  # not admitted: new, preempted, or resumed without pages
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A sequence's work is always ``len(tokens) + pending - computed``.

    ``computed`` counts the tokens whose KV is written or is being written by a step in flight;
    ``pending`` the tokens that a step in flight samples and whose values are not known yet.
    """

    id: int
    tokens: list[int]
    prompt_length: int
    params: SamplingParams
    stop_ids: frozenset[int]
    status: Status = Status.WAITING
    computed: int = 0
    pending: int = 0
    sampled: int = 0
    # Steps in flight that hold this sequence, and the tokens they compute.
    steps_in_flight: int = 0
    tokens_in_flight: int = 0
    # What a step sampled under an older epoch is dropped: the sequence paused or ended since.
    epoch: int = 0
    # One page table per group; entry i holds tokens [i * page_size, (i + 1) * page_size).
    tables: list[list[int]] = field(default_factory=list)
    host_tables: list[list[int]] | None = None
    page_keys: list[bytes] = field(default_factory=list)
    registered: int = 0  # leading pages already offered to the prefix cache
    high_water: int = 0  # most tokens ever computed; below it, work is recomputation
    parent: int | None = None  # forked from, and not yet attached to its pages
    fork_length: int = 0

    @property
    def length(self) -> int:
        """Tokens, those in flight included."""
        return len(self.tokens) + self.pending

    @property
    def work(self) -> int:
        """Tokens still to be computed."""
        return self.length - self.computed

    @property
    def settled(self) -> int:
        """Tokens whose KV is written by steps that have ended."""
        return self.computed - self.tokens_in_flight

    @property
    def next_query(self) -> int:
        """Earliest position that may still be computed: a resume with no new token, and a fork,
        compute the last token again."""
        return min(self.settled, len(self.tokens) - 1)

    @property
    def holds_pages(self) -> bool:
        return any(table for table in self.tables)
