"""The progress of a problem while it runs: of the whole, and of each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .attempt import State

if TYPE_CHECKING:
    from ..chat.tool_call import Call, MalformedCall
    from .attempt import Attempt

TAIL_TOKENS = 48
"""Tokens at the end of a turn that are decoded to show what an attempt thinks at present."""


@dataclass(frozen=True)
class RunningCalls:
    """The calls of an attempt that the tool runs.

    Attributes:
        calls: the calls, in order.
        began: seconds from the problem's start to theirs.
    """

    calls: Sequence[Call | MalformedCall]
    began: float


@dataclass(frozen=True)
class AttemptProgress:
    """A snapshot of an attempt.

    Attributes:
        number: number of the attempt, from 1.
        state: "thinking", "waiting" (for a call), "answered" or "gave up".
        tokens: tokens sampled.
        speed: sampled tokens per second of the time that the model, not the tool, took.
        calls, errors: tool calls with an outcome, and those that failed.
        doing: the last words of the thought, the code that runs, or how the attempt ended. It is
            text of the model: one line, not escaped.
        seconds: time that the code has been running for; None if none runs.
        answer: the answer of an ended attempt, or None.
    """

    number: int
    state: str
    tokens: int
    speed: float
    calls: int
    errors: int
    doing: str
    seconds: float | None = None
    answer: int | None = None


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
        granted: seconds that the problem may take.
        attempts: a snapshot of each attempt.
    """

    seconds: float
    states: dict[str, int]
    tokens: int
    calls: int
    errors: int
    votes: dict[int, int]
    speed: float
    granted: float = float("inf")
    attempts: tuple[AttemptProgress, ...] = ()


@dataclass(frozen=True)
class UnderWay:
    """A problem of a run that is being solved.

    Attributes:
        id: its id.
        progress: its last snapshot; None until there is one.
    """

    id: str
    progress: Progress | None = None


def attempt_progress(attempt: Attempt, running: RunningCalls | None, now: float) -> AttemptProgress:
    """Return a snapshot of an attempt; may be called while the engine's thread changes it.

    Args:
        attempt: the attempt.
        running: its calls that the tool runs, or None.
        now: seconds since the problem's start.
    """
    state, turns, calls = attempt.state, list(attempt.turns), attempt.calls
    tokens = attempt.tokens
    last = turns[-1]
    closed = sum(turn.seconds for turn in turns)
    thinking = closed + (now - last.started if state is State.THINKING else 0.0)
    seconds = None
    if attempt.ending is not None:
        doing = f"{attempt.ending}: {attempt.detail}" if attempt.detail else str(attempt.ending)
    elif running is not None and state is State.WAITING:
        doing, seconds = _code_line(running.calls), now - running.began
    else:
        doing = attempt.protocol.decode(last.tokens[-TAIL_TOKENS:])
    return AttemptProgress(
        attempt.index + 1,
        str(state),
        tokens,
        tokens / thinking if thinking > 0 else 0.0,
        len(calls),
        sum(call.status != "ok" for call in calls),
        " ".join(doing.split()),
        seconds,
        attempt.answer,
    )


def _code_line(calls: Sequence[Call | MalformedCall]) -> str:
    """Return the code of the first call that has any, as one line."""
    codes = [code for call in calls if (code := getattr(call, "code", None))]
    return (
        "; ".join(line.strip() for line in codes[0].splitlines() if line.strip()) if codes else ""
    )
