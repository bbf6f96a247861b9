"""Progress in a notebook: a table that is updated in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from eightfold.common.html_table import html_cells, html_table

from .progress_display import ProgressDisplay
from .progress_text import duration, votes_text

if TYPE_CHECKING:
    from ..attempts.problem_progress import AttemptProgress, Progress

REDRAW_INTERVAL = 0.5
"""Least number of seconds between two updates."""

SHOWN = 80
"""Characters of what an attempt does."""

TITLES = ("attempt", "state", "tokens", "tokens/s", "calls", "errors", "answer", "doing")


def live_view() -> Callable[[Progress], None]:
    """Return a function for `on_progress` that shows the attempts while a problem is solved.

    In a notebook it is a table that is updated in place. Elsewhere it is what the command line
    shows, on standard error.
    """
    if not _in_notebook():
        return ProgressDisplay(sys.stderr).progress
    return NotebookView().progress


class NotebookView:
    """A table below the cell that runs."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = 0.0

    def progress(self, progress: Progress) -> None:
        """Show a snapshot; one that comes too soon is left out, unless it is the last."""
        ended = progress.attempts and all(
            one.state in ("answered", "gave up") for one in progress.attempts
        )
        now = time.monotonic()
        if now - self._drawn < REDRAW_INTERVAL and not ended:
            return
        self._drawn = now
        from IPython.display import HTML, display

        table = HTML(progress_html(progress))
        if self._handle is None:
            self._handle = display(table, display_id=True)
        else:
            self._handle.update(table)


def progress_html(progress: Progress) -> str:
    """Return a heading, a table of the attempts, and the votes."""
    return (
        f"<p><strong>{duration(progress.seconds)}</strong>: {progress.tokens} tokens, "
        f"{progress.speed:.0f} tokens/s; votes: {votes_text(progress.votes) or 'none yet'}</p>"
        f"{html_table(TITLES, map(_cells, progress.attempts))}"
    )


def _cells(one: AttemptProgress) -> str:
    doing = one.doing[-SHOWN:] if one.state == "thinking" else one.doing[:SHOWN]
    if one.seconds is not None:
        doing = f"{duration(one.seconds)}: {doing}"
    answer = "" if one.answer is None else one.answer
    state = "running" if one.state == "waiting" else one.state
    values = (one.number, state, one.tokens, f"{one.speed:.0f}", one.calls, one.errors, answer)
    return f'{html_cells(values)}<td style="text-align:left"><code>{escape(doing)}</code></td>'


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
