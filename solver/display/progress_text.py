"""Progress as one line of text, as long as there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted

if TYPE_CHECKING:
    from ..attempts.problem_progress import Progress


def votes_text(votes: dict[int, int], most: int | None = None) -> str:
    """Return votes in the form `42 x 3, 41 x 1`.

    Args:
        votes: number of attempts for each answer, the leader first.
        most: number of answers to name; `2 more` stands for the others. None names all.
    """
    named = [f"{answer} x {count}" for answer, count in votes.items()][:most]
    left_out = len(votes) - len(named)
    return ", ".join(named + ([f"{left_out} more"] if left_out else []))


def duration(seconds: float) -> str:
    """Return a time span in the form 45 s, 12:30 or 3:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def progress_text(progress: Progress, width: int | None = None) -> str:
    """Return one line: time, attempts by state, tokens, calls and votes.

    Args:
        progress: the snapshot.
        width: columns that the line may take. What does not fit is left out, the least important
            first: votes behind the leaders, calls, tokens, states. None leaves nothing out.
    """
    forms = _progress_forms(progress)
    if width is None:
        return next(forms)
    return next((form for form in forms if len(form) <= width), "")


def _progress_forms(progress: Progress) -> Iterator[str]:
    """Yield the line in shorter and shorter forms."""
    time_passed = duration(progress.seconds)
    states = ", ".join(f"{count} {state}" for state, count in progress.states.items())
    tokens = f"{counted(progress.tokens, 'token')}, {progress.speed:.0f}/s"
    calls = f"{counted(progress.calls, 'call')}, {counted(progress.errors, 'error')}"
    votes = f"votes: {votes_text(progress.votes) or 'none yet'}"
    leaders = votes
    yield " | ".join((time_passed, states, tokens, calls, votes))
    if len(progress.votes) > 2:
        leaders = f"votes: {votes_text(progress.votes, 2)}"
        yield " | ".join((time_passed, states, tokens, calls, leaders))
    yield " | ".join((time_passed, states, tokens, leaders))
    yield " | ".join((time_passed, states, leaders))
    yield " | ".join((time_passed, leaders))
    if len(progress.votes) > 1:
        yield f"{time_passed} | votes: {votes_text(progress.votes, 1)}"
    yield time_passed


def whole_words(text: str, width: int) -> str:
    """Return as much from the text's beginning as fits into `width` columns.

    Parts between bars are left out as a whole, so that no number loses its unit; the first part is
    cut between words, so that no number is cut.
    """
    from rich.cells import cell_len

    for separator in (" | ", " "):
        parts = text.split(separator)
        while parts and cell_len(separator.join(parts)) > width:
            parts.pop()
        if parts:
            return separator.join(parts)
        text = text.partition(separator)[0]
    return ""
