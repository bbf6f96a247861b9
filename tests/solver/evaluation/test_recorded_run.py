"""A recorded run as an object (1 s)."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import SETTINGS, record_run

from eightfold.solver import RecordedRun, SolverError


def test_a_run_and_its_summary_are_tables_in_a_notebook(tmp_path: Path) -> None:
    record_run(tmp_path / "run")
    run = RecordedRun(tmp_path / "run")
    assert run.settings == SETTINGS
    assert len(run.records) == 6
    assert run.summary["problems"] == 6
    summary, whole = run.summary._repr_html_(), run._repr_html_()
    assert whole.startswith(summary)
    assert "accuracy" in summary
    assert "<td>p5</td><td>5</td>" in whole
    assert repr(run).startswith("RecordedRun(")
    assert "accuracy 1.000" in repr(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match="holds no run"):
        RecordedRun(tmp_path)
