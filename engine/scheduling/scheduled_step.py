"""The plan of a step and its result, which pass between the scheduler and a runner."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .draft_tree import NO_DRAFTS, DraftTree
from .sequence import Sequence


@dataclass(slots=True)  # not frozen: hundreds are made in each step, in a third of the time
class ScheduledTokens:
    """Tokens ``[start, start + count)`` of one sequence, computed in one step.

    Nothing changes an entry once it is made. With drafts, the first token is the sequence's newest
    and the others are the drafts, each of which draws the token that follows it. Their keys and
    values go to the places of positions ``[start, start + count)`` in this order, even if the
    drafts are a tree.

    Args:
        seq: the sequence.
        start: position of the first token.
        count: number of tokens, drafts included.
        samples: True if the logits of the last token give the token at ``start + count``; always
            with drafts.
        carried: True if the last token was sampled by the previous step, which is still in flight,
            so that only the device knows its value.
        epoch: epoch of the sequence when the step was planned.
        drafts: guesses of the tokens that follow the first one.
        may_move: most tokens by which the step before, still in flight, moves the entry: as many as
            it has right drafts. ``start`` is the least possible position until that step is
            committed, and the tokens, drafts included, are on the device alone.
    """

    seq: Sequence
    start: int
    count: int
    samples: bool
    carried: bool
    epoch: int
    drafts: DraftTree = NO_DRAFTS
    may_move: int = 0

    @property
    def known_count(self) -> int:
        """Number of tokens that are no drafts."""
        return self.count - len(self.drafts.tokens)

    @property
    def is_chunk(self) -> bool:
        """True if several known tokens are computed, whose queries see all keys before them."""
        return self.count > 1 and not self.drafts.tokens

    @property
    def draw_count(self) -> int:
        """Number of tokens that the entry draws."""
        return 1 + len(self.drafts.tokens) if self.samples else 0

    @property
    def positions(self) -> list[int]:
        """Position of each token: that of a draft counts the tokens that it follows."""
        if self.drafts:
            return [self.start + depth for depth in self.drafts.depths]
        return list(range(self.start, self.start + self.count))


class PageCopy(NamedTuple):
    """A copy of one page of a group, made before the forward pass of a step.

    ``kind`` names the direction: ``"fork"`` copies within the device, ``"offload"`` from the device
    to the host, and ``"restore"`` from the host to the device. ``"token"`` copies the keys and
    values of one token within the device; its source and target are slots, not pages.
    """

    kind: Literal["fork", "offload", "restore", "token"]
    group: int
    source: int
    target: int


@dataclass(slots=True)
class StepPlan:
    """One step: page copies in their order, then one forward pass over all scheduled tokens.

    Args:
        scheduled: scheduled tokens, single tokens and their drafts before longer chunks.
        page_copies: copies to make before the forward pass.
        freed_host_pages: host pages, as (group, page), that are free once the step is committed.
        next_drafts: drafts of each sequence that the device makes behind the step, for the next.
    """

    scheduled: list[ScheduledTokens] = field(default_factory=list)
    page_copies: list[PageCopy] = field(default_factory=list)
    freed_host_pages: list[tuple[int, int]] = field(default_factory=list)
    next_drafts: int = 0

    @property
    def token_count(self) -> int:
        """Number of tokens computed by the step."""
        return sum(entry.count for entry in self.scheduled)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Tokens sampled by a step, in the order of the scheduled entries that sample.

    An entry with drafts samples one token for each of its rows.

    Args:
        tokens: token ids.
        entropies: one entropy per token, in nats; 0.0 if the sequence did not ask for it.
        accepted: number of right drafts of each entry, if the device has counted them; its drafts
            are a line then.
    """

    tokens: list[int]
    entropies: list[float]
    accepted: list[int] | None = None
