"""`eightfold report`: where it writes, and what it says (5 s)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.solver_cases.hostile_run import plain_run, problem, write_run

from eightfold.solver.cli import main


def test_the_page_is_written_into_the_run_or_where_it_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = plain_run(tmp_path / "run", 3)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'} (0.")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    out = tmp_path / "new" / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert out.read_bytes() == (run / "report.html").read_bytes()


def test_another_run_is_shown_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = plain_run(tmp_path / "first", 3), plain_run(tmp_path / "second", 4)
    assert main(["report", str(first), "--compare", str(second)]) == 0
    assert "<h2>first and second</h2>" in (first / "report.html").read_text(encoding="utf-8")
    other = write_run(tmp_path / "other", (problem("x", None, 1, attempts=0), []))
    assert main(["report", str(first), "--compare", str(other)]) == 2
    assert "no problem in common" in capsys.readouterr().err


def test_a_folder_without_a_run_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["report", str(plain_run(tmp_path / "run", 1)), "--out", str(tmp_path)]) == 2
    assert "cannot be written: Is a directory." in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run"), "--out", "/dev/full"]) == 3
    assert "/dev/full: No space left on device." in capsys.readouterr().err


def test_a_report_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    run = plain_run(tmp_path / "run", 3)
    script = (
        "import sys; from eightfold.solver.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
