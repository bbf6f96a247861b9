"""The trace of an ended attempt: one JSON-ready object with all turns and calls."""

from __future__ import annotations

from typing import Any

from .attempt import Attempt, Turn
from .attempt_statistics import AttemptStatistics
from .calls.call_record import CallRecord
from .draft_counts import DraftCounts


def attempt_record(
    attempt: Attempt, statistics: AttemptStatistics, drafts: DraftCounts
) -> dict[str, Any]:
    """Return an ended attempt as an object that JSON can encode.

    Args:
        attempt: the attempt.
        statistics: its statistics, as `attempt.statistics()` returns them.
        drafts: counts of the drafts made for it.
    """
    return {
        "attempt": attempt.index,
        "seed": attempt.seed,
        "chat": attempt.protocol.reason,
        "state": str(attempt.state),
        "ending": str(attempt.ending),
        "detail": attempt.detail,
        "answer": attempt.answer,
        "nudged": attempt.nudged,
        "tokens": attempt.tokens,
        "drafted": drafts.drafted,
        "accepted": drafts.accepted,
        "calls": statistics.calls,
        "errors": statistics.errors,
        "error_kinds": [call.error for call in attempt.calls if call.error],
        "entropy": None if statistics.entropy is None else round(statistics.entropy, 5),
        "ended": round(statistics.ended, 3),
        "code": statistics.code,
        "turns": [_turn_record(turn) for turn in attempt.turns],
    }


def _turn_record(turn: Turn) -> dict[str, Any]:
    return {
        "started": round(turn.started, 3),
        "seconds": round(turn.seconds, 3),
        "opener": turn.opener,
        "text": turn.text,
        "notes": list(turn.contents.notes),
        "tokens": turn.tokens,
        "entropies": [round(value, 3) for value in turn.entropies],
        "calls": [_call_record(call) for call in turn.calls],
        "appended": turn.appended,
        "replaced": turn.replaced,
        "stopped": turn.stopped,
        "rewound": turn.rewound,
    }


def _call_record(call: CallRecord) -> dict[str, Any]:
    return {
        "code": call.code,
        "status": call.status,
        "error": call.error,
        "seconds": round(call.seconds, 3),
        "output": call.text,
    }
