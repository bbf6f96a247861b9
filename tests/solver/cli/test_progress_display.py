"""What a person sees while a problem is worked on (0.5 s)."""

from __future__ import annotations

import fcntl
import pty
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from io import StringIO

import pytest

from eightfold.solver.attempts.problem_run import Progress
from eightfold.solver.progress_display import ProgressDisplay, duration, progress_text

PROGRESS = Progress(75.2, {"thinking": 5, "answered": 3}, 1234, 7, 2, {42: 2, 41: 1}, 98.7)


def shown(columns: int, act: Callable[[ProgressDisplay], None]) -> str:
    """What a terminal of that width is sent."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(writer, "w") as stream:
        act(ProgressDisplay(stream))
    data = b""
    with suppress(OSError), open(reader, "rb", buffering=0) as file:  # fails at the end, on Linux
        while part := file.read(4096):
            data += part
    return data.decode()


def test_display_is_quiet_where_it_should_be() -> None:
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
def test_live_line_fits_the_terminal(
    columns: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(display: ProgressDisplay) -> None:
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", "xterm")
    assert shown(columns, act) == "\r\x1b[K" + progress_text(PROGRESS)[:count] + "\r\x1b[K"


def test_plain_terminals_get_no_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(display: ProgressDisplay) -> None:
        display.note("loading")
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", "dumb")
    assert shown(80, act) == "loading\r\n"
