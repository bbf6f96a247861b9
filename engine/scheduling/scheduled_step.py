"""What passes between scheduler, runner and caller: plans, results and events."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
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


class Move(NamedTuple):
    """One page copied before a step, in the order listed."""

    kind: Literal["copy", "out", "in"]  # device to device, to the host, from the host
    group: int
    source: int
    target: int


@dataclass(slots=True)
class Plan:
    """One step: moves first, then all work in one forward pass."""

    works: list[Work] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    host_pages: list[tuple[int, int]] = field(default_factory=list)  # (group, page) freed at commit

    @property
    def token_count(self) -> int:
        return sum(work.count for work in self.works)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step drew for the works that sample, in their order.

    ``tokens``: token ids. ``entropies``: nats, one per token; 0.0 where not asked for.
    """

    tokens: list[int]
    entropies: list[float]


@dataclass(frozen=True, slots=True)
class Event:
    """What one step did to one sequence.

    Args:
        seq: the sequence's number.
        tokens: sampled tokens in order; a pause or end token is among them.
        entropies: nats, one per token where ``SamplingParams.entropy`` is set, else empty.
        status: ``"running"``, ``"paused"`` or ``"finished"``.
        reason: ``None`` while running; ``"pause"``; or ``"eos"``, ``"length"`` (max_new_tokens),
            ``"context"`` (no room for another token), ``"cancelled"``.
    """

    seq: int
    tokens: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()
    status: Literal["running", "paused", "finished"] = "running"
    reason: str | None = None
