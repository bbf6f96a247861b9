"""Events: what the engine reports about its sequences after each step."""

from typing import Literal, NamedTuple

Status = Literal["running", "paused", "finished"]


class Event(NamedTuple):
    """The effect of one step on one sequence.

    Args:
        seq: number of the sequence.
        tokens: sampled tokens in order, including a pause or stop token.
        entropies: one entropy per token, in nats, if ``SamplingParams.entropy`` is set; else empty.
        status: ``"running"``, ``"paused"`` or ``"finished"``.
        reason: ``None`` while the sequence runs; ``"pause"``; or why it finished: ``"eos"``,
            ``"length"`` (``max_new_tokens`` reached), ``"context"`` (no room for another token) or
            ``"cancelled"``.
        drafted: depth of the deepest draft that the step verified for the sequence; 0 for none.
        accepted: number of drafts that were right, those behind a pause or an end included.
    """

    seq: int
    tokens: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()
    status: Status = "running"
    reason: str | None = None
    drafted: int = 0
    accepted: int = 0
