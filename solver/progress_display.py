"""Progress for people: one live line on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from eightfold.common.counted_noun import counted

if TYPE_CHECKING:
    from rich.console import Console

    from .attempts.problem_result import Progress

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal."""


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
    """Return as many words from the text's beginning as fit into `width` columns.

    A word is never cut, so that no number is.
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    kept = ""
    for word in text.split(" "):
        longer = f"{kept} {word}" if kept else word
        if cell_len(longer) > width:
            break
        kept = longer
    return kept


class ProgressDisplay:
    """Writes progress to a stream.

    Args:
        stream: the stream, usually standard error.
        enabled: False writes nothing.

    Attributes:
        live: True if the stream is a terminal on which a line can be replaced.
    """

    def __init__(self, stream: TextIO, enabled: bool = True) -> None:
        self.stream = stream
        self.enabled = enabled
        self.live = enabled and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._console = _console(stream) if self.live else None
        self._shown = False
        self._last = time.monotonic()

    def note(self, text: str) -> None:
        """Show a state that lasts; on a terminal the next one replaces it."""
        if self.live:
            self._replace(text)
        elif self.enabled:
            print(text, file=self.stream, flush=True)

    def line(self, text: str) -> None:
        """Print a line that stays, on a terminal too."""
        self.clear()
        if self.enabled:
            print(text, file=self.stream, flush=True)

    def progress(self, progress: Progress) -> None:
        """Show the progress of a problem."""
        self.update(progress_text(progress, self._width() if self.live else None))

    def update(self, text: str) -> None:
        """Show a passing state; elsewhere than on a terminal, print it only now and then."""
        if self.live:
            self._replace(text)
        elif self.enabled and time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove the live line."""
        if self._shown:
            self._replace("")
            self._shown = False

    def _width(self) -> int:
        """Return the columns of the live line, without the last, at which terminals wrap."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:
            columns = 80
        return max(1, columns - 1)

    def _replace(self, text: str) -> None:
        """Replace the live line by as many words of a text as fit, in one write.

        rich's own `Live` would hide the cursor, and leave it hidden after SIGTERM or SIGKILL.
        """
        from rich.control import Control
        from rich.segment import ControlType
        from rich.text import Text

        assert self._console is not None
        with self._console:
            self._console.control(
                Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 0))
            )
            line = Text(whole_words(text, self._width()))
            self._console.print(line, soft_wrap=True, end="")
        self._shown = True


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # imported late: --help and plain output do not need it

    return Console(file=stream, force_terminal=True, highlight=False)
