"""Progress on a stream: a live table on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from .progress_text import progress_text, whole_words

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..attempts.problem_progress import Progress, UnderWay

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal."""

REDRAW_INTERVAL = 0.45
"""Least number of seconds between two redraws on a terminal."""

PLAIN_TERMINALS = ("dumb", "unknown")
"""Types of terminals that take no control sequences, as rich knows them."""

TABLE_COLUMNS, TABLE_LINES = 64, 10
"""Least size of a terminal on which a table is shown instead of a line."""


class ProgressDisplay:
    """Writes progress to a stream.

    Args:
        stream: the stream, usually standard error.
        enabled: False writes nothing.

    Attributes:
        live: True if the stream is a terminal on which lines can be replaced.
    """

    def __init__(self, stream: TextIO, enabled: bool = True) -> None:
        self.stream = stream
        self.enabled = enabled
        plain = os.environ.get("TERM", "").lower() in PLAIN_TERMINALS
        self.live = enabled and stream.isatty() and not plain
        self._console = _console(stream) if self.live else None
        self._lines = 0  # lines that the terminal shows at present
        self._lock = threading.Lock()  # of what the terminal shows
        self._last = time.monotonic()
        self._drawn = 0.0  # when the last view was drawn

    def note(self, text: str) -> None:
        """Show a state that lasts; on a terminal the next one replaces it."""
        if self.live:
            self._replace_by_line(text)
        elif self.enabled:
            print(text, file=self.stream, flush=True)

    def line(self, text: str) -> None:
        """Print a line that stays, on a terminal too."""
        self.clear()
        if self.enabled:
            with self._lock:
                print(text, file=self.stream, flush=True)

    def progress(self, progress: Progress) -> None:
        """Show the progress of a problem: a table if there is room for one, else a line."""
        columns, lines = self._size()
        if not self.live:
            self.update(progress_text(progress))
        elif not progress.attempts or columns < TABLE_COLUMNS - 1 or lines < TABLE_LINES:
            self.update(progress_text(progress, columns))
        elif self._due():
            from .live_table import problem_view

            self._replace(problem_view(progress, columns, lines))

    def run_progress(self, status: str, problems: Sequence[UnderWay]) -> None:
        """Show the state of a run, given as one line, and the problems under way."""
        if not problems:
            self.update(status)
            return

        def make(columns: int, lines: int) -> RenderableType:
            from .live_table import run_view

            return run_view(status, problems, columns, lines)

        self.view(status, make)

    def view(self, status: str, make: Callable[[int, int], RenderableType]) -> None:
        """Show a state that is given as one line, as a view if there is room for one.

        Args:
            status: the line.
            make: returns the view for a number of columns and lines.
        """
        columns, lines = self._size()
        if not self.live or columns < TABLE_COLUMNS - 1 or lines < TABLE_LINES:
            self.update(status)
        elif self._due():
            self._replace(make(columns, lines))

    def update(self, text: str) -> None:
        """Show a passing state; elsewhere than on a terminal, print it only now and then."""
        if self.live:
            self._replace_by_line(text)
        elif self.enabled and time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove what the terminal shows."""
        if self._lines and self._console is not None:
            with self._lock, self._console:
                self._erase()
        self._drawn = 0.0

    def close(self) -> None:
        """Remove what the terminal shows, and show nothing more."""
        self.clear()
        with self._lock:
            self.enabled = self.live = False
        self.clear()  # what another thread drew in between

    def _due(self) -> bool:
        """Return whether a view may be drawn again."""
        now = time.monotonic()
        if now - self._drawn < REDRAW_INTERVAL:
            return False
        self._drawn = now
        return True

    def _size(self) -> tuple[int, int]:
        """Return columns, without the last, at which terminals wrap, and lines."""
        try:
            size = os.get_terminal_size(self.stream.fileno())
        except OSError:
            return 79, 24
        return max(1, (size.columns or 80) - 1), size.lines or 24

    def _replace_by_line(self, text: str) -> None:
        """Replace what is shown by as many words of a text as fit into one line."""
        from rich.text import Text

        self._replace(Text(whole_words(text, self._size()[0]), no_wrap=True))

    def _replace(self, view: RenderableType) -> None:
        """Replace what is shown by a view, in one write.

        rich's own `Live` would hide the cursor, and leave it hidden after SIGTERM or SIGKILL.
        """
        from rich.segment import Segment, Segments

        assert self._console is not None
        columns, height = self._size()
        options = self._console.options.update(width=columns)
        rows = self._console.render_lines(view, options, pad=False)[: max(1, height - 1)]
        parts = [part for row in rows for part in (*row, Segment.line())][:-1]
        with self._lock:
            if not self.live:  # closed by another thread
                return
            with self._console:
                self._erase()
                self._console.print(Segments(parts), soft_wrap=True, end="")
                self._lines = len(rows)  # before they are written, which may be interrupted

    def _erase(self) -> None:
        """Erase what is shown, and leave the cursor where it began."""
        from rich.control import Control
        from rich.segment import ControlType

        assert self._console is not None
        erase = (ControlType.ERASE_IN_LINE, 0)
        up = ((ControlType.CURSOR_UP, 1), erase) * max(0, self._lines - 1)
        self._console.control(Control(ControlType.CARRIAGE_RETURN, erase, *up))
        self._lines = 0


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # imported late: --help and plain output do not need it

    return Console(file=stream, force_terminal=True, highlight=False)
