"""One sequence: its tokens, how many of them are computed, and the pages that hold their KV."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ..sampling_params import SamplingParams

FREED = -1  # page table entry whose page fell behind the sliding window and was freed


class SequenceStatus(Enum):
    WAITING = "waiting"  # holds no pages, or holds them and waits to run
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of a sequence and the state of their computation.

    The tokens still to be computed always number ``len(tokens) + pending - computed``.
    """

    id: int
    tokens: list[int]
    prompt_length: int
    params: SamplingParams
    stop_ids: frozenset[int]
    status: SequenceStatus = SequenceStatus.WAITING
    # Tokens whose KV is written, or is being written by a step in flight.
    computed: int = 0
    # Tokens that steps in flight sample: their number is known, their values are not yet.
    pending: int = 0
    sampled: int = 0
    # Steps in flight that include this sequence, and the number of tokens they compute for it.
    steps_in_flight: int = 0
    tokens_in_flight: int = 0
    drafts_in_flight: int = 0  # beside those tokens; they count as computed once they are right
    # Raised by a pause or an end; tokens sampled by steps of an older epoch are dropped.
    epoch: int = 0
    # One page table per group; entry i holds tokens [i * page_size, (i + 1) * page_size).
    tables: list[list[int]] = field(default_factory=list)
    host_tables: list[list[int]] | None = None
    page_keys: list[bytes] = field(default_factory=list)  # of leading full pages, for the cache
    registered: int = 0  # leading pages already offered to the prefix cache
    max_computed: int = 0  # most tokens ever computed; below it, computing is recomputing
    # Length to which the sequence was rewound while steps were in flight; see ``Scheduler.rewind``.
    rewind_length: int | None = None
    parent: int | None = None  # original of a fork that has not received its pages yet
    fork_length: int = 0  # number of tokens at the time of the fork

    @property
    def length(self) -> int:
        """Number of tokens, including those that steps in flight sample."""
        return len(self.tokens) + self.pending

    @property
    def uncomputed(self) -> int:
        """Number of tokens still to be computed."""
        return self.length - self.computed

    @property
    def committed(self) -> int:
        """Number of tokens whose KV was written by steps that have ended."""
        return self.computed - self.tokens_in_flight

    @property
    def next_query(self) -> int:
        """Earliest position that may still be computed.

        A fork, and a sequence resumed without new tokens, compute their last token a second time.
        """
        return min(self.committed, len(self.tokens) - 1)

    @property
    def holds_pages(self) -> bool:
        """True if any page of the device belongs to the sequence."""
        return any(self.tables)

    def extend(self, drawn: Iterable[int], max_context: int) -> tuple[int, str | None]:
        """Append drawn tokens up to the first one that pauses or finishes the sequence.

        A token that finishes it is only taken if it is the first. Behind others it is left to the
        next step, which draws it again: who reads those others may still rewind the sequence.

        Returns:
            The number of tokens appended, and ``"pause"``, why the sequence finishes, or ``None``.
        """
        count = 0
        for token in drawn:
            self.tokens.append(token)
            self.sampled += 1
            count += 1
            reason = self.finish_reason(max_context)
            if reason is None:
                if token in self.params.pause_token_ids:
                    return count, "pause"
            elif count > 1:
                self.tokens.pop()
                self.sampled -= 1
                return count - 1, None
            else:
                return count, reason
        return count, None

    def finish_reason(self, max_context: int) -> str | None:
        """Return why the last token finishes the sequence, or ``None`` if it does not."""
        limit = self.params.max_new_tokens
        if self.tokens[-1] in self.stop_ids:
            return "eos"
        if limit is not None and self.sampled >= limit:
            return "length"
        if len(self.tokens) >= max_context:
            return "context"
        return None


def held_pages(table: Iterable[int]) -> list[int]:
    """Return the pages of a table without the freed entries."""
    return [page for page in table if page != FREED]
