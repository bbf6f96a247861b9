"""The line of problems.jsonl for a problem, and the line that is shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eightfold.common.counted_noun import counted
from eightfold.common.error_text import one_line

from ..attempts.draft_counts import sum_drafts
from ..display.progress_text import duration
from ..problem_set import Problem
from .machine_failure import MachineFailure, lost_attempts

if TYPE_CHECKING:
    from ..solver import Result

SET_ASIDE = "set aside"
"""Why no further attempt at a problem was awaited that the machine failed each time."""


def is_unfamiliar(record: dict[str, Any]) -> bool:
    """Return whether a problem, given by its line, is unlike what the model was trained on.

    Runs of models whose folders say nothing about their training, and older runs, have no distance.
    """
    distance = record.get("distance")
    return isinstance(distance, int | float) and distance > 1


def problem_record(problem: Problem, result: Result, granted: float) -> dict[str, Any]:
    """Return the line of problems.jsonl for a problem.

    Args:
        problem: the problem.
        result: its result.
        granted: seconds that it was given.
    """
    return {
        "id": problem.id,
        "problem": problem.text,
        "family": problem.family,
        "truth": problem.answer,
        "answer": result.answer,
        "votes": {str(answer): count for answer, count in result.votes.items()},
        "attempts": len(result.attempts),
        "lost": len(lost_attempts(result.attempts)),  # attempts that the machine failed
        "stopped": result.stopped,
        "granted": round(granted, 3),
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        **sum_drafts(result.attempts),
        "calls": result.calls,
        "errors": result.errors,
        "faults": list(result.faults),
        "distance": result.distance,
        "infrastructure": [],  # what the machine did to earlier tries
        "prompt": list(result.prompt),
        "system": result.system,
    }


def set_aside_record(
    problem: Problem, attempts: int, failures: Sequence[MachineFailure]
) -> dict[str, Any]:
    """Return the line of a problem that is given up because the machine failed each time.

    Args:
        problem: the problem.
        attempts: number of attempts that were not made.
        failures: what the machine did to it.
    """
    from ..solver import Result

    fault = f"set aside: {failures[-1].cause}, {counted(len(failures), 'time')} in all"
    result = Result(None, {}, (), 0.0, 0, 0, 0, SET_ASIDE, (fault,))
    return {
        **problem_record(problem, result, 0.0),
        "lost": attempts,
        "infrastructure": [failure.record() for failure in failures],
    }


def problem_line(record: dict[str, Any]) -> str:
    """Return what to show of a finished problem: its answer, the votes for it, time and faults.

    Args:
        record: its line of problems.jsonl.
    """
    answer, truth = record["answer"], record["truth"]
    given = "no answer" if answer is None else str(answer)
    if truth is not None:
        given += " (right)" if answer == truth else f" (wrong, {one_line(truth, 24)} is right)"
    votes = next(iter(record["votes"].values()), 0)
    faults = f", {counted(len(record['faults']), 'fault')}" if record["faults"] else ""
    return (
        f"{one_line(record['id'], 40)}: {given}, {votes} of {counted(record['attempts'], 'vote')}, "
        f"{duration(record['seconds'])}{faults}"
    )
