"""The progress that a person sees while a problem is being solved (0.5 s)."""

from __future__ import annotations

import fcntl
import pty
import re
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from io import StringIO

import pytest

from eightfold.solver.attempts.problem_result import Progress
from eightfold.solver.progress_display import ProgressDisplay, duration, progress_text

PROGRESS = Progress(75.2, {"thinking": 5, "answered": 3}, 1234, 7, 2, {42: 2, 41: 1}, 98.7)


def sent(columns: int, act: Callable[[ProgressDisplay], None]) -> str:
    """Return what a terminal of that width receives."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(writer, "w") as stream:
        act(ProgressDisplay(stream))
    data = b""
    with suppress(OSError), open(reader, "rb", buffering=0) as file:  # Linux fails at the end
        while part := file.read(4096):
            data += part
    return data.decode()


def lines_shown(data: str) -> list[str]:
    """Return the contents of a terminal's line, each of which erases the one before."""
    return re.split("\r\x1b\\[0?K", data)


def test_without_a_terminal_only_lasting_lines_are_printed() -> None:
    stream = StringIO()
    display = ProgressDisplay(stream)
    display.update("passing")
    display.line("stays")
    assert stream.getvalue() == "stays\n"
    assert [duration(s) for s in (5.4, 75, 3700)] == ["5 s", "1:15", "1:01:40"]


def test_progress_names_attempts_speed_calls_and_votes() -> None:
    assert progress_text(PROGRESS) == (
        "1:15 | 5 thinking, 3 answered | 1234 tokens, 99/s | 7 calls, 2 errors | "
        "votes: 42 x 2, 41 x 1"
    )


@pytest.mark.parametrize(("columns", "count"), [(20, 19), (2, 1), (0, 79), (500, 499)])
@pytest.mark.parametrize("no_color", [False, True])
def test_live_line_fits_the_terminal(
    columns: int, count: int, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(display: ProgressDisplay) -> None:
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    assert lines_shown(sent(columns, act)) == ["", progress_text(PROGRESS)[:count], ""]


def test_live_line_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = "[bold]1[/bold] :smile: 'x' 2.5"
    assert lines_shown(sent(80, lambda display: display.note(text))) == ["", text]


def test_dumb_terminals_get_no_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(display: ProgressDisplay) -> None:
        display.note("loading")
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", "dumb")
    assert sent(80, act) == "loading\r\n"
