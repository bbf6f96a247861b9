"""Tables on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from eightfold.common.terminal_table import Column, format_table

COLUMNS = [Column("rule"), Column("value", right=True), Column("interval")]
ROWS = [("majority", "85.0%", "[80.0%, 90.0%]"), ("[red]x[/red]" + "y" * 200, "100.0%", ":smile:")]


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_row_is_one_plain_line() -> None:
    text = format_table(COLUMNS, ROWS, indent=2, plain_titles=False, stream=io.StringIO())
    lines = text.splitlines()
    assert [line.split() for line in lines] == [" ".join(row).split() for row in ROWS]
    assert all(line.startswith("  ") and line == line.rstrip() for line in lines)
    assert "\x1b" not in text
    titled = format_table(COLUMNS, ROWS, stream=io.StringIO()).splitlines()
    assert titled[0].split() == ["rule", "value", "interval"]
    assert len(titled) == 3


def test_on_a_terminal_rows_have_titles_and_fit_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    lines = format_table(COLUMNS, ROWS, plain_titles=False, stream=Terminal()).splitlines()
    assert lines[0].split() == ["rule", "value", "interval"]
    assert set(lines[1].strip()) == {"─"}
    assert len(lines) > 4, "the long cell is wrapped"
    assert max(map(len, lines)) <= 60


def test_a_terminal_that_is_not_utf8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    stream.encoding = "ascii"
    format_table(COLUMNS, ROWS, stream=stream).encode("ascii")
