"""The notebook runs from its inputs, in a Jupyter kernel. About 10 s."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest

from eightfold.solver.kaggle.local_gateway import Row

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "aimo3.ipynb"


def code_cells() -> list[str]:
    """Return the source of the notebook's code cells."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_first_cell_finds_the_bundle_if_links_form_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "datasets" / "someone" / "bundle"
    below.mkdir(parents=True)
    (below / "eightfold.lock").touch()
    for name in ("one", "two", "three"):  # 3 to the power of 40 paths
        (tmp_path / "datasets" / name).symlink_to(tmp_path / "datasets")
    ran: list[list[object]] = []
    monkeypatch.setenv("EIGHTFOLD_INPUT", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    exec(code_cells()[0], {})
    (command,) = ran
    lock = Path(str(command[-1]))
    assert lock.samefile(below / "eightfold.lock")
    assert lock.parent == command[command.index("--find-links") + 1]


def test_the_notebook_runs(tmp_path: Path) -> None:
    client = pytest.importorskip("jupyter_client")
    code = code_cells()
    assert not any('"/' in text or "'/" in text for text in code), "no absolute paths"
    data = tmp_path / "input" / "competitions" / "anything"
    data.mkdir(parents=True)
    rows = [
        Row("a", "What is the value of $d(23326)$, where $d(n)$ is the number of divisors of $n$?"),
        Row("b", "What is the remainder when $5^{8985}$ is divided by 66?"),
    ]
    frame = pl.DataFrame({"id": [r.id for r in rows], "problem": [r.problem for r in rows]})
    frame.write_csv(data / "test.csv")
    variables = {**os.environ, "EIGHTFOLD_INPUT": str(tmp_path / "input")}
    variables.pop("KAGGLE_IS_COMPETITION_RERUN", None)
    manager, kernel = client.manager.start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env=variables
    )
    try:
        for text in code:
            reply = kernel.execute_interactive(text, timeout=120, output_hook=lambda _: None)
            assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    table = pl.read_parquet(tmp_path / "submission.parquet")
    assert dict(table.rows()) == {"a": 8, "b": pow(5, 8985, 66)}
    assert len((tmp_path / "kaggle.jsonl").read_text().splitlines()) == 2
