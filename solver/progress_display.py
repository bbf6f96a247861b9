"""Progress for people: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import time
from typing import Any, TextIO

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where the output is no terminal."""


def votes_text(votes: dict[int, int]) -> str:
    """Votes as `42 x 3, 41 x 1`."""
    return ", ".join(f"{answer} x {count}" for answer, count in votes.items())


def duration(seconds: float) -> str:
    """A time to go or gone by: 45 s, 12:30 or 3:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


class ProgressDisplay:
    """Writes progress to a stream; silent where not `enabled`."""

    def __init__(self, stream: TextIO, enabled: bool = True) -> None:
        self.stream = stream
        self.enabled = enabled
        self.live = enabled and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False
        self._last = time.monotonic()

    def note(self, text: str) -> None:
        """A line that stays (elsewhere) or that the next one replaces (on a terminal)."""
        if self.live:
            self._replace(text)
        elif self.enabled:
            print(text, file=self.stream, flush=True)

    def line(self, text: str) -> None:
        """A line that stays, on a terminal too."""
        self.clear()
        if self.enabled:
            print(text, file=self.stream, flush=True)

    def progress(self, progress: Any) -> None:
        """Where a problem stands (a `solver.problem.Progress`)."""
        self.update(progress_text(progress))

    def update(self, text: str) -> None:
        """A passing state: replaced on a terminal, printed now and then elsewhere."""
        if self.live:
            self._replace(text)
        elif self.enabled and time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Takes the live line away."""
        if self._shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._shown = False

    def _replace(self, text: str) -> None:
        try:
            width = os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:
            width = 80
        self.stream.write("\r\x1b[K" + text[: max(1, width - 1)])
        self.stream.flush()
        self._shown = True


def progress_text(progress: Any) -> str:
    """One line: time, attempts by state, tokens, calls, votes."""
    states = ", ".join(f"{count} {state}" for state, count in progress.states.items())
    votes = votes_text(progress.votes) or "none yet"
    return (
        f"{duration(progress.seconds)} | {states} | {progress.tokens} tokens, "
        f"{progress.speed:.0f}/s | {progress.calls} calls, {progress.errors} errors | "
        f"votes: {votes}"
    )
