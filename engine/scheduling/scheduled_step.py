"""What passes between scheduler, runner and caller: plans, results and events."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class ScheduledTokens:
    """Tokens ``[start, start + count)`` of one sequence, computed in one step.

    Where ``carried``, the last of them is the token that the step before sampled: it is still on
    the device. Where ``samples``, the logits of the last one give the token at ``start + count``.
    """

    seq: Sequence
    start: int
    count: int
    samples: bool
    carried: bool
    epoch: int


class PageCopy(NamedTuple):
    """One page copied before a step, in the order listed."""

    kind: Literal["fork", "offload", "restore"]  # device to device, to the host, from the host
    group: int
    source: int
    target: int


@dataclass(slots=True)
class StepPlan:
    """One step: copies first, then all work in one forward pass."""

    scheduled: list[ScheduledTokens] = field(default_factory=list)
    page_copies: list[PageCopy] = field(default_factory=list)
    freed_host_pages: list[tuple[int, int]] = field(
        default_factory=list
    )  # (group, page) freed at commit

    @property
    def token_count(self) -> int:
        return sum(entry.count for entry in self.scheduled)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step drew for the entries that sample, in their order.

    ``tokens``: token ids. ``entropies``: nats, one per token; 0.0 where not asked for.
    """

    tokens: list[int]
    entropies: list[float]
