"""Progress for people: one live line on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from .attempts.problem_result import Progress

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal."""


def votes_text(votes: dict[int, int]) -> str:
    """Return votes in the form `42 x 3, 41 x 1`."""
    return ", ".join(f"{answer} x {count}" for answer, count in votes.items())


def duration(seconds: float) -> str:
    """Return a time span in the form 45 s, 12:30 or 3:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def progress_text(progress: Progress) -> str:
    """Return one line: time, attempts by state, tokens, calls and votes."""
    states = ", ".join(f"{count} {state}" for state, count in progress.states.items())
    votes = votes_text(progress.votes) or "none yet"
    return (
        f"{duration(progress.seconds)} | {states} | {progress.tokens} tokens, "
        f"{progress.speed:.0f}/s | {progress.calls} calls, {progress.errors} errors | "
        f"votes: {votes}"
    )


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
        self.update(progress_text(progress))

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

    def _replace(self, text: str) -> None:
        """Replace the live line by as much of a text as fits, in one write.

        rich's own `Live` would hide the cursor, and leave it hidden after SIGTERM or SIGKILL.
        """
        from rich.control import Control
        from rich.segment import ControlType
        from rich.text import Text

        assert self._console is not None
        try:
            width = os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:
            width = 80
        with self._console:
            self._console.control(
                Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 0))
            )
            line = Text(text)
            line.truncate(max(1, width - 1), overflow="crop")
            self._console.print(line, soft_wrap=True, end="")
        self._shown = True


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # imported late: --help and plain output do not need it

    return Console(file=stream, force_terminal=True, highlight=False)
