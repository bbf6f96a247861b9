"""The folder of a run: what it refuses, and when it becomes a run (1 s)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.recorded_run import SETTINGS, record_run

from eightfold.solver import SolverError
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import KEYS, read_lines, read_run, statistics_of


def test_a_run_is_not_mixed_with_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", SETTINGS, resume=False)
    with pytest.raises(SolverError, match="still in progress"):
        RunFolder(tmp_path / "run", SETTINGS, resume=True)
    run.begin()
    run.close()
    with pytest.raises(SolverError, match="--resume"):
        RunFolder(tmp_path / "run", SETTINGS, resume=False)
    with pytest.raises(SolverError, match="seed = 0, not 1"):
        RunFolder(tmp_path / "run", SETTINGS | {"seed": 1}, resume=True)
    (tmp_path / "run" / "run.json").write_text('{"round": 1, "settings": {"problems": "1"}}')
    with pytest.raises(SolverError, match="was run with other problems; resume"):
        RunFolder(tmp_path / "run", {"problems": "2"}, resume=True)
    with pytest.raises(SolverError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{}\n[]\n{}\n")
    with pytest.raises(SolverError, match="Line 2"):
        list(read_lines(tmp_path / "bad.jsonl"))


def damaged(values: dict[str, Any]) -> bytes:
    """Return a line of problems.jsonl with wrong values."""
    return json.dumps({**dict.fromkeys(KEYS["problems"], 0), "id": "p0", **values}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("problems", b"\xff\xfe\n", "Line 7 of .*problems.jsonl is not JSON"),
        (
            "problems",
            b"{}\n",
            "Line 7 of .*problems.jsonl has no 'id'; remove the line",
        ),
        (
            "problems",
            damaged({"seconds": None}),
            "Line 7 of .*problems.jsonl has no number for 'seconds'",
        ),
        (
            "attempts",
            b'"calls": 2}\n',
            "Line 19 of .* is not JSON .*; remove the line",
        ),
        ("attempts", None, "lacks attempts at problem 'p0'; remove its line"),
    ],
)
def test_damaged_records_are_reported_and_not_voted_on(
    name: str, damage: bytes | None, message: str, tmp_path: Path
) -> None:
    record_run(tmp_path / "run")
    file = tmp_path / "run" / f"{name}.jsonl"
    file.write_bytes(file.read_bytes() + damage if damage else b"")
    with pytest.raises(SolverError, match=message):
        read_run(tmp_path / "run")


def test_a_folder_becomes_a_run_when_solving_begins(tmp_path: Path) -> None:
    """A model that cannot be loaded must not block the folder for the next try."""
    run = RunFolder(tmp_path / "new" / "run", SETTINGS, resume=False)
    run.close()
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SolverError, match="cannot be made: File exists"):
        RunFolder(tmp_path / "file", SETTINGS, resume=False)
    record_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SolverError, match=r"problems but no run\.json"):
        RunFolder(tmp_path / "run", SETTINGS, resume=True)


def test_statistics_of_a_record_average_the_entropy_of_its_last_tokens(tmp_path: Path) -> None:
    record_run(tmp_path / "run")
    _, attempts = read_run(tmp_path / "run")[0]
    assert statistics_of(attempts[0]).entropy == 1.0
    assert statistics_of(attempts[0], tail=1).entropy == 0.4
