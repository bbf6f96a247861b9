"""Completion as a shell asks for it (3 s)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def completions(line: str, folder: Path) -> set[str]:
    """Return what argcomplete offers at the end of a line."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    words = [sys.executable, "-m", "eightfold.solver.cli"]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    return {word.strip() for word in answer.read_text().split("\n")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs.csv").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("eightfold so", {"solve"}),
        ("eightfold kaggle ", {"rehearse", "--help", "-h"}),
        ("eightfold solve x --ear", {"--early-stop"}),
        ("eightfold solve x --rule maj", {"majority"}),
        ("eightfold evaluate ru", {"runs/", "runs.csv"}),
        ("eightfold evaluate runs.csv --out ru", {"runs/"}),
        ("eightfold solve x --attempts ", {""}),
    ],
)
def test_commands_options_values_and_files(line: str, offered: set[str], folder: Path) -> None:
    (folder / "eightfold.toml").write_text("faulty = ")
    found = completions(line, folder)
    assert found == offered or (line.endswith("kaggle ") and "rehearse" in found)


def test_the_console_script_is_marked_for_global_completion() -> None:
    from eightfold.solver import cli

    assert cli.__file__ is not None
    assert "PYTHON_ARGCOMPLETE_OK" in Path(cli.__file__).read_text()[:1024]
