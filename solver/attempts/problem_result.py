"""The progress of a problem while it runs, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """A snapshot of a problem.

    Attributes:
        seconds: time since the start.
        states: number of attempts in each state.
        tokens: tokens sampled by all attempts.
        calls, errors: tool calls with an outcome, and those that failed.
        votes: number of ended attempts for each answer, the leader first.
        speed: sampled tokens per second.
    """

    seconds: float
    states: dict[str, int]
    tokens: int
    calls: int
    errors: int
    votes: dict[int, int]
    speed: float


@dataclass(frozen=True)
class Result:
    """The result of a problem.

    Attributes:
        answer: winner of the vote, or None if no attempt has an answer.
        votes: number of attempts for each answer, the winner first.
        attempts: a JSON-ready record of each attempt (see `attempt_record`).
        seconds: wall-clock time.
        tokens: tokens sampled by all attempts.
        calls, errors: tool calls with an outcome, and those that failed.
        stopped: why no further attempt was awaited: "agreement", "lead", "all ended", "time", ...
        faults: what went wrong in the engine or the solver.
        prompt: token ids of the prompt.
    """

    answer: int | None
    votes: dict[int, int]
    attempts: tuple[dict[str, Any], ...]
    seconds: float
    tokens: int
    calls: int
    errors: int
    stopped: str
    faults: tuple[str, ...] = ()
    prompt: tuple[int, ...] = field(default=(), repr=False)
