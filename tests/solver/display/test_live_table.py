"""The tables that a terminal shows while problems are being solved (1 s)."""

from __future__ import annotations

import fcntl
import pty
import re
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from eightfold.solver.attempts.problem_progress import AttemptProgress, Progress, UnderWay
from eightfold.solver.display import progress_display
from eightfold.solver.display.live_table import first_words, last_words, problem_view, run_view
from eightfold.solver.display.progress_display import ProgressDisplay

THOUGHT = AttemptProgress(1, "thinking", 1500, 61.4, 0, 0, "hence the order of 7 is 20")
CODE = AttemptProgress(2, "waiting", 90_000, 58.0, 12, 3, "import sympy; print(2)", 12.2)
RIGHT = AttemptProgress(3, "answered", 700, 60.0, 1, 0, "answered", None, 42)
EMPTY = AttemptProgress(4, "gave up", 10, 60.0, 0, 0, "no valid answer: 3.5 is no integer")
STATES = {"thinking": 1, "waiting": 1, "answered": 1, "gave up": 1}
PROGRESS = Progress(
    75.2, STATES, 92_210, 13, 3, {42: 1}, 240.0, 900.0, (THOUGHT, CODE, RIGHT, EMPTY)
)


class Terminal:
    """A terminal that keeps its lines, of the control sequences that the display uses."""

    def __init__(self, data: str) -> None:
        self.lines, self.row = [""], 0
        for part in re.split("(\x1b\\[[0-9;]*[A-Za-z]|\r\n|\r)", data):
            if part == "\r\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif re.fullmatch("\x1b\\[0?K", part):
                self.lines[self.row] = ""
            elif up := re.fullmatch("\x1b\\[([0-9]*)A", part):
                self.row -= int(up[1] or 1)
            elif not part.startswith(("\x1b", "\r")):
                self.lines[self.row] += part


def shown(columns: int, lines: int, act: Callable[[ProgressDisplay], None]) -> Terminal:
    """Return what a terminal of that size shows in the end."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with open(writer, "w") as stream:
        act(ProgressDisplay(stream))
    data = b""
    with suppress(OSError), open(reader, "rb", buffering=0) as file:  # Linux fails at the end
        while part := file.read(4096):
            data += part
    return Terminal(data.decode())


@pytest.fixture(autouse=True)
def redraw_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_display, "REDRAW_INTERVAL", 0.0)
    monkeypatch.setenv("TERM", "xterm")


def test_a_row_tells_what_its_attempt_does() -> None:
    heading, titles, thought, code, right, empty, votes = problem_view(
        PROGRESS, 100, 24
    ).plain.splitlines()
    assert heading == "1:15 of 15:00 | 92210 tokens, 240/s | 13 calls, 3 errors"
    assert titles.split() == ["state", "tokens", "/s", "calls", "answer", "doing"]
    assert thought.split(maxsplit=5) == ["1", "thinking", "1500", "61", "0", THOUGHT.doing]
    assert code.split(maxsplit=6)[1:6] == ["running", "90000", "58", "12", "(3)"]
    assert code.endswith("12 s: import sympy; print(2)")
    assert right.split()[-2:] == ["42", "answered"]
    assert empty.endswith("no valid answer: 3.5 is no integer")
    assert votes == "votes: 42 x 1"


@pytest.mark.parametrize("no_color", [False, True])
def test_a_view_replaces_the_one_before_and_leaves_nothing(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    def act(display: ProgressDisplay) -> None:
        display.note("loading")
        display.progress(PROGRESS)
        display.progress(replace(PROGRESS, attempts=PROGRESS.attempts[:2], tokens=5))

    terminal = shown(80, 24, act)
    view = problem_view(replace(PROGRESS, attempts=PROGRESS.attempts[:2], tokens=5), 79, 24)
    assert [line for line in terminal.lines if line] == view.plain.splitlines()

    def act_and_end(display: ProgressDisplay) -> None:
        act(display)
        display.line("answer: 42")
        display.progress(PROGRESS)
        display.clear()

    assert [line for line in shown(80, 24, act_and_end).lines if line] == ["answer: 42"]


def test_colors_are_left_out_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    text: list[str] = []

    def act(display: ProgressDisplay) -> None:
        assert display._console is not None
        with display._console.capture() as capture:
            display._console.print(problem_view(PROGRESS, 79, 24))
        text.append(capture.get())

    shown(80, 24, act)
    monkeypatch.setenv("NO_COLOR", "1")
    shown(80, 24, act)
    assert "\x1b[32m" in text[0]  # green from the terminal's palette
    assert "\x1b[3" not in text[1]


@given(
    columns=st.integers(64, 140),
    lines=st.integers(10, 40),
    count=st.integers(1, 40),
    doing=st.text(max_size=200),
)
def test_views_fit_the_terminal(columns: int, lines: int, count: int, doing: str) -> None:
    attempts = tuple(replace(THOUGHT, number=i + 1, doing=doing) for i in range(count))
    progress = replace(PROGRESS, attempts=attempts, votes={10**5 - i: 1 for i in range(9)})
    many = [UnderWay(f"{i} {doing}", progress if i % 2 else None) for i in range(count)]
    for view in (
        problem_view(progress, columns - 1, lines),
        run_view(f"1/9 problems | {doing}", many, columns - 1, lines),
        run_view("1/9 problems", [UnderWay(doing, progress)], columns - 1, lines),
    ):
        rows = view.plain.split("\n")
        assert len(rows) < lines
        assert all(cell_len(row) < columns for row in rows)
        assert all(char.isprintable() for row in rows for char in row)


def test_what_does_not_fit_is_counted_and_still_running_attempts_are_kept() -> None:
    attempts = tuple(replace(RIGHT, number=i + 1) for i in range(20))
    running = (replace(THOUGHT, number=21), replace(CODE, number=22))
    text = problem_view(replace(PROGRESS, attempts=attempts + running), 80, 12).plain
    assert "and 15 attempts more" in text
    assert "21 thinking" in text
    assert "22 running" in text


def test_a_run_lists_its_problems_and_details_a_single_one() -> None:
    text = run_view("2/9 problems", [UnderWay("p1", PROGRESS), UnderWay("p2")], 79, 24).plain
    status, titles, first, second = text.splitlines()
    assert (status, titles.split()[-1]) == ("2/9 problems", "votes")
    assert first.split()[:4] == ["p1", "1:15", "15:00", "2/4"]
    assert second.split() == ["p2", "starts"]
    alone = run_view("2/9 problems", [UnderWay("p1", PROGRESS)], 79, 24).plain
    assert alone.splitlines()[:2] == ["2/9 problems", "problem p1"]
    assert alone.endswith("votes: 42 x 1")


def test_small_terminals_get_a_line() -> None:
    for columns, lines in ((63, 24), (80, 9)):
        terminal = shown(columns, lines, lambda display: display.progress(PROGRESS))
        assert len([line for line in terminal.lines if line]) == 1


@given(st.text(max_size=60), st.integers(0, 40))
def test_cut_texts_keep_their_side(text: str, width: int) -> None:
    head, tail = first_words(text, width), last_words(text, width)
    assert max(cell_len(head), cell_len(tail)) <= max(width, cell_len("…") if width else 0)
    if cell_len(text) <= width:
        assert head == tail == text
