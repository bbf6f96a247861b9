"""The progress that a person sees while a problem is being solved (0.5 s)."""

from __future__ import annotations

import fcntl
import pty
import re
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.attempts.problem_progress import Progress
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.display.progress_text import duration, progress_text, whole_words

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


@pytest.mark.parametrize("columns", [0, 2, 5, 10, 20, 40, 60, 80, 500])
@pytest.mark.parametrize("no_color", [False, True])
def test_live_line_fits_the_terminal(
    columns: int, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(display: ProgressDisplay) -> None:
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    before, shown, after = lines_shown(sent(columns, act))
    assert (before, after) == ("", "")
    assert len(shown) < (columns or 80)
    assert shown == progress_text(PROGRESS, (columns or 80) - 1)


def test_a_narrow_line_leaves_out_whole_parts_and_never_cuts_a_number() -> None:
    votes = {100 + i: 2 for i in range(12)}
    crowded = replace(PROGRESS, states={"thinking": 12, "waiting": 4, "answered": 8}, votes=votes)
    full = progress_text(crowded)
    seen = set()
    for width in range(1, len(full) + 1):
        line = progress_text(crowded, width)
        assert len(line) <= width
        numbers = set(re.findall(r"\d+", line.replace("more", "")))
        assert numbers <= {*re.findall(r"\d+", full), "10", "11"}, line
        seen.add(line)
    assert "1:15 | votes: 100 x 2, 11 more" in seen
    assert progress_text(crowded, 79).endswith("| votes: 100 x 2, 101 x 2, 10 more")


@given(st.text("ab 12", max_size=30), st.integers(1, 40))
def test_other_live_lines_are_cut_between_words(text: str, width: int) -> None:
    kept = whole_words(text, width)
    assert len(kept) <= width
    assert f"{text} ".startswith(f"{kept} ") or not kept


def test_a_line_that_is_cut_keeps_the_unit_of_each_number() -> None:
    line = "2/4 problems | 1/2 right | 78 tok/s"
    assert whole_words(line, 30) == "2/4 problems | 1/2 right"
    assert whole_words(line, 8) == "2/4"


def test_a_single_thing_is_named_in_the_singular() -> None:
    one = Progress(1.0, {"thinking": 1}, 1, 1, 1, {}, 1.0)
    assert (
        progress_text(one) == "1 s | 1 thinking | 1 token, 1/s | 1 call, 1 error | votes: none yet"
    )


def test_live_line_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = "[bold]1[/bold] :smile: 'x' 2.5"
    assert lines_shown(sent(80, lambda display: display.note(text))) == ["", text]


def test_what_is_shown_is_removed_after_an_interrupt_of_its_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InterruptedTerminal(StringIO):
        interrupted = False

        def isatty(self) -> bool:
            return True

        def flush(self) -> None:
            if not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt

    monkeypatch.setenv("TERM", "xterm")
    terminal = InterruptedTerminal()
    display = ProgressDisplay(terminal)
    with pytest.raises(KeyboardInterrupt):
        display.update("passing")
    assert terminal.getvalue().endswith("passing")
    display.clear()
    assert lines_shown(terminal.getvalue())[-1] == ""


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_dumb_terminals_get_no_control_sequences(
    terminal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(display: ProgressDisplay) -> None:
        display.note("loading")
        display.progress(PROGRESS)
        display.clear()

    monkeypatch.setenv("TERM", terminal)
    assert sent(80, act) == "loading\r\n"
