"""Tables of a problem's attempts, and of the problems under way, for a terminal.

They are lines of fixed columns: rich's own tables take five times as long to lay out, which several
redraws a second would take from the engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from eightfold.common.counted_noun import counted

from .progress_text import duration, votes_text

if TYPE_CHECKING:
    from ..attempts.problem_progress import AttemptProgress, Progress, UnderWay

STYLES = {"answered": "green", "gave up": "red", "waiting": "cyan"}
"""Colors of states, from the terminal's own palette, which suits its background."""

LINES_AROUND = 5
"""Lines of a view beside its rows: heading, titles, hidden rows, votes, and the cursor's line."""

ENDED = ("answered", "gave up")
"""States of attempts that have ended."""

ATTEMPT_COLUMNS = {"": 2, "state": -8, "tokens": 7, "/s": 5, "calls": 8, "answer": 6}
PROBLEM_COLUMNS = {"time": 7, "of": 7, "ended": 6, "tokens": 8, "/s": 5, "calls": 9}
"""Titles and widths; columns of negative width are aligned to the left."""

Row = tuple[str, str]
"""A line and its style."""


def problem_view(progress: Progress, width: int, height: int) -> Text:
    """Return a heading, a row for each attempt, and the votes.

    Args:
        progress: the snapshot.
        width: columns of the terminal.
        height: lines of the terminal; the attempts that do not fit are counted instead.
    """
    granted = f" of {duration(progress.granted)}" if math.isfinite(progress.granted) else ""
    heading = " | ".join(
        (
            f"{duration(progress.seconds)}{granted}",
            f"{counted(progress.tokens, 'token')}, {progress.speed:.0f}/s",
            f"{counted(progress.calls, 'call')}, {counted(progress.errors, 'error')}",
        )
    )
    shown = _that_fit(progress.attempts, max(1, height - LINES_AROUND))
    rows = [(heading, ""), (f"{_cells(ATTEMPT_COLUMNS, list(ATTEMPT_COLUMNS))}  doing", "bold")]
    rows += [_attempt_row(one, width) for one in shown]
    hidden = len(progress.attempts) - len(shown)
    if hidden:
        rows.append((f"and {counted(hidden, 'attempt')} more", ""))
    rows.append((f"votes: {votes_text(progress.votes, 4) or 'none yet'}", ""))
    return _text(rows, width)


def run_view(status: str, problems: Sequence[UnderWay], width: int, height: int) -> Text:
    """Return the state of a run and, below it, the problems under way.

    Args:
        status: the run in one line.
        problems: the problems under way; if there is one alone, its attempts are shown.
        width, height: columns and lines of the terminal.
    """
    rows = [(status, "")]
    if len(problems) == 1 and problems[0].progress is not None:
        rows.append((f"problem {problems[0].id}", ""))
        view = problem_view(problems[0].progress, width, height - 2)
        return Text("\n").join([_text(rows, width), view])
    room = max(1, height - LINES_AROUND)
    name = _name_width(width)
    titles = f"{set_cell_size('problem', name)}  {_cells(PROBLEM_COLUMNS, list(PROBLEM_COLUMNS))}"
    rows.append((f"{titles}  votes", "bold"))
    rows += [(_problem_row(one, name), "") for one in problems[:room]]
    if len(problems) > room:
        rows.append((f"and {counted(len(problems) - room, 'problem')} more", ""))
    return _text(rows, width)


def printable(text: str) -> str:
    """Return text with a space for each character that a terminal would not show as one."""
    return "".join(char if char.isprintable() else " " for char in text)


def first_words(text: str, width: int) -> str:
    """Return the beginning of a text that fits into `width` columns, with an ellipsis if cut."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"[:width]


def last_words(text: str, width: int) -> str:
    """Return the end of a text that fits into `width` columns, with an ellipsis if it is cut."""
    if cell_len(text) <= width:
        return text
    return "…"[:width] + set_cell_size(text[::-1], max(0, width - 1)).rstrip()[::-1]


def _that_fit(attempts: Sequence[AttemptProgress], room: int) -> Sequence[AttemptProgress]:
    """Return the attempts to show: those that have ended are left out first."""
    if len(attempts) <= room:
        return attempts
    order = sorted(attempts, key=lambda one: (one.state in ENDED, one.number))[:room]
    return sorted(order, key=lambda one: one.number)


def _attempt_row(one: AttemptProgress, width: int) -> Row:
    cells = _cells(
        ATTEMPT_COLUMNS,
        [
            str(one.number),
            "running" if one.state == "waiting" else one.state,
            str(one.tokens),
            f"{one.speed:.0f}",
            _calls(one),
            "" if one.answer is None else str(one.answer),
        ],
    )
    cancelled = one.doing.startswith("cancelled")
    style = "dim" if cancelled else STYLES.get(one.state, "")
    return f"{cells}  {_doing(one, width - len(cells) - 2)}", style


def _doing(one: AttemptProgress, room: int) -> str:
    """Return what an attempt does: running code from its beginning, a thought from its end."""
    text = printable(one.doing)
    if one.seconds is not None:
        return first_words(f"{duration(one.seconds)}: {text}", room)
    return last_words(text, room) if one.state == "thinking" else first_words(text, room)


def _problem_row(problem: UnderWay, name: int) -> str:
    label = set_cell_size(first_words(printable(problem.id), name), name)
    progress = problem.progress
    if progress is None:
        return f"{label}  starts"
    cells = _cells(
        PROBLEM_COLUMNS,
        [
            duration(progress.seconds),
            duration(progress.granted) if math.isfinite(progress.granted) else "",
            f"{sum(progress.states.get(state, 0) for state in ENDED)}"
            f"/{sum(progress.states.values())}",
            str(progress.tokens),
            f"{progress.speed:.0f}",
            _calls(progress),
        ],
    )
    return f"{label}  {cells}  {votes_text(progress.votes, 2) or 'none yet'}"


def _calls(counts: AttemptProgress | Progress) -> str:
    """Return the number of calls, with that of failed ones in brackets."""
    return f"{counts.calls} ({counts.errors})" if counts.errors else str(counts.calls)


def _name_width(width: int) -> int:
    """Return the columns for ids; the votes get at least 12."""
    return max(8, min(24, width - sum(PROBLEM_COLUMNS.values()) - len(PROBLEM_COLUMNS) - 15))


def _cells(columns: dict[str, int], values: Sequence[str]) -> str:
    """Return values as cells of these widths; a longer value takes the room that it needs."""
    widths = columns.values()
    return " ".join(
        value.ljust(-width) if width < 0 else value.rjust(width)
        for value, width in zip(values, widths, strict=True)
    )


def _text(rows: Sequence[Row], width: int) -> Text:
    lines = [Text(first_words(printable(row), width), style) for row, style in rows]
    return Text("\n", no_wrap=True, overflow="crop").join(lines)
