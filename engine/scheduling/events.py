"""What the engine reports to its caller after each step."""

from dataclasses import dataclass
from typing import Literal


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
