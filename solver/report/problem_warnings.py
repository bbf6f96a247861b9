"""Warning marks of a problem: what a reader should look at before trusting its score."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..answers import boxes
from ..attempts.attempt import MACHINE_ENDINGS, Ending
from ..evaluation.problem_record import is_unfamiliar
from ..evaluation.run_scores import CUT_OFF
from .conversation import visible_text

LIMITS = (Ending.LENGTH, Ending.CONTEXT, Ending.TIME, Ending.TURNS, Ending.REPEATED)
FAULTS = (*MACHINE_ENDINGS, Ending.FAULT, Ending.REFUSED)
_CONCLUSION = 400  # characters at the end of an attempt that may hold an answer without a box


@dataclass(frozen=True)
class WarningMark:
    """A warning mark.

    Attributes:
        kind: "unread", "limit", "fault", "vote" or "unfamiliar".
        label: a few words for the list.
        reason: a sentence for the page of the problem.
    """

    kind: str
    label: str
    reason: str


def problem_warnings(problem: dict[str, Any], tries: list[dict[str, Any]]) -> list[WarningMark]:
    """Return the warnings of a problem, the gravest first.

    Args:
        problem: its record.
        tries: the records of its attempts.
    """
    truth = problem["truth"]
    found = []
    right = [one for one in tries if truth is not None and one["answer"] == truth]
    if right and problem["answer"] != truth:
        reason = f"The vote is wrong although {named_attempts(right)} had the right answer."
        found.append(WarningMark("vote", "lost vote", reason))
    unread = [one for one in tries if unread_answer(one, truth)]
    if unread:
        reason = f"{_capital(named_attempts(unread))} wrote an answer that was not extracted."
        found.append(WarningMark("unread", "answer not read", reason))
    broken = [one for one in tries if faulty(one)]
    if broken:
        reason = f"The sandbox or the engine failed in {named_attempts(broken)}."
        found.append(WarningMark("fault", "fault", reason))
    if problem["faults"]:
        reason = f"The solver recorded a fault: {problem['faults'][0]}"
        found.append(WarningMark("fault", "fault", reason))
    limited = [one for one in tries if one["ending"] in LIMITS]
    if limited:
        endings = ", ".join(sorted({str(one["ending"]) for one in limited}))
        reason = f"{_capital(named_attempts(limited))} hit a limit ({endings})."
        found.append(WarningMark("limit", "limit hit", reason))
    if is_unfamiliar(problem):
        reason = "The problem is unlike those of the model's training: do not trust the answer."
        found.append(WarningMark("unfamiliar", "unfamiliar", reason))
    return found


def unread_answer(attempt: dict[str, Any], truth: int | None) -> bool:
    """Return True if an attempt without an answer seems to have written one.

    That is a box outside thoughts and calls, or the right integer at the end of the last turn.
    Attempts that were cut off or faulty were not asked.
    """
    turns = attempt["turns"]
    if attempt["answer"] is not None or attempt["ending"] in (*CUT_OFF, Ending.FAULT) or not turns:
        return False
    if any(boxes(visible_text(turn)) for turn in turns):
        return True
    if truth is None:
        return False
    conclusion = visible_text(turns[-1])[-_CONCLUSION:].replace(",", "").replace("{}", "")
    return re.search(rf"(?<![\d.\w]){re.escape(str(truth))}(?![\d\w]|\.\d)", conclusion) is not None


def faulty(attempt: dict[str, Any]) -> bool:
    """Return True if the engine, the solver or the sandbox failed in an attempt."""
    calls = [call for turn in attempt["turns"] for call in turn.get("calls", ())]
    return attempt["ending"] in FAULTS or any(call["status"] == "died" for call in calls)


def named_attempts(tries: list[dict[str, Any]]) -> str:
    """Name attempts as people count them, from 1."""
    numbers = [str(one["attempt"] + 1) for one in tries]
    if len(numbers) == 1:
        return f"attempt {numbers[0]}"
    return f"attempts {', '.join(numbers[:-1])} and {numbers[-1]}"


def _capital(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]
