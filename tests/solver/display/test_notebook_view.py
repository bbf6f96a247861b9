"""The table that a notebook shows while a problem is being solved (1 s)."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import pytest

from eightfold.solver import live_view
from eightfold.solver.attempts.problem_progress import AttemptProgress, Progress
from eightfold.solver.display import notebook_view

ONE = AttemptProgress(1, "thinking", 12, 60.0, 0, 0, "if a < b && c <script>alert(1)</script>")
PROGRESS = Progress(3.0, {"thinking": 1}, 12, 0, 0, {}, 60.0, 900.0, (ONE,))


def test_in_a_notebook_the_table_is_updated_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, table: Any) -> None:
            shown[-1] = table.data

    def display(table: Any, display_id: bool) -> Handle:
        assert display_id
        shown.append(table.data)
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=1))
    monkeypatch.setattr(IPython.display, "display", display)
    show = live_view()
    show(PROGRESS)
    show(replace(PROGRESS, tokens=77))  # too soon
    assert "12 tokens" in shown[0]
    ended = replace(ONE, state="answered", answer=42)
    show(replace(PROGRESS, tokens=99, votes={42: 1}, attempts=(ended,)))
    (table,) = shown
    assert "99 tokens" in table
    assert "42 x 1" in table
    assert "<td>42</td>" in table


def test_text_of_a_model_is_escaped() -> None:
    table = notebook_view.progress_html(PROGRESS)
    assert "<script>" not in table
    assert "&lt;script&gt;" in table


def test_elsewhere_it_is_what_the_command_line_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eightfold.solver.display.progress_display.PLAIN_INTERVAL", 0.0)
    monkeypatch.delitem(sys.modules, "IPython")
    live_view()(PROGRESS)
    assert capsys.readouterr().err.startswith("3 s | 1 thinking | 12 tokens")
