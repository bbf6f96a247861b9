"""`kaggle rehearse`: what it refuses, and a rehearsal of the bundled model. About 15 s."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from helpers.solver_cases.kaggle_stubs import StubSolver

from eightfold.solver.attempts.problem_progress import Progress
from eightfold.solver.cli import main
from eightfold.solver.cli.commands import kaggle_command
from eightfold.solver.kaggle import local_gateway, predict_endpoint
from eightfold.solver.time_budget import Budget, BudgetConfig


def test_wrong_input_is_reported_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kaggle", "rehearse", str(tmp_path / "none.csv")]) == 2
    (tmp_path / "bad.csv").write_text("id,text\n1,2\n")
    assert main(["kaggle", "rehearse", str(tmp_path / "bad.csv")]) == 2
    good = tmp_path / "good.csv"
    good.write_text("id,problem\n1,x\n")
    out = tmp_path / "out"
    for wrong in (
        *(["--limit-time", "nan"], ["--limit-time", "0"], ["--time", "3"], ["--fallback", "-1"]),
        *(["--out", str(good)], ["--out", "/proc/self"], ["--model", str(tmp_path)]),
    ):
        assert main(["kaggle", "rehearse", str(good), "--out", str(out), *wrong]) == 2
        assert not out.exists(), wrong
    assert capsys.readouterr().err.count("\n") == 9


PROGRESS = Progress(1.0, {"thinking": 8}, 90, 0, 0, {}, 90.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (0, "0 of 1 problem done."),
        (1, "1 of 1 problem done; their answers are in out/kaggle.jsonl."),
    ],
)
def test_an_interrupt_replaces_the_table_and_is_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: int, said: str
) -> None:
    session: Any = SimpleNamespace(
        served=1, answered=answered, fallbacks=0, budget=Budget(BudgetConfig())
    )

    def gateway(*arguments: Any, **options: Any) -> None:
        session.on_progress("p", PROGRESS)
        raise KeyboardInterrupt

    def stop() -> None:
        session.on_progress("p", PROGRESS)
        session.write_log("a late line")

    monkeypatch.setattr(predict_endpoint, "start", lambda settings: session)
    monkeypatch.setattr(predict_endpoint, "stop", stop)
    monkeypatch.setattr(local_gateway, "run_gateway", gateway)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,problem\np,x\n")
    assert main(["kaggle", "rehearse", "p.csv", "--out", "out"]) == 130
    table, _, last = sys.stderr.getvalue().rpartition("\x1b[0K")  # type: ignore[attr-defined]
    assert "0 fallbacks" in table
    assert last == f"Interrupted; {said}\n"


def test_an_interrupt_before_the_first_problem_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    start = predict_endpoint.start
    monkeypatch.setattr(predict_endpoint, "start", lambda settings: start(settings, StubSolver))
    monkeypatch.setattr(kaggle_command, "show_progress", interrupted)
    (tmp_path / "p.csv").write_text("id,problem\np,x\n")
    words = [str(tmp_path / "p.csv"), "--out", str(tmp_path), "--quiet"]
    assert main(["kaggle", "rehearse", *words]) == 130
    assert capsys.readouterr().err.endswith("Interrupted; 0 of 1 problem done.\n")
    assert predict_endpoint._session is None


def test_a_rehearsal_of_the_bundled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "problems.csv"
    table.write_text(
        '\ufeffid,problem,answer\r\n007,"What is the remainder when $5^{8985}$ is\n""divided"" by'
        ' 66?",23\r\n8,"What is the value of $d(23326)$, where $d(n)$ is the number of divisors'
        ' of $n$?",9\r\n',
        encoding="utf-8",
    )
    options = ["--out", str(tmp_path / "out"), "--attempts", "4", "--kernels", "4", "--json"]
    assert main(["kaggle", "rehearse", str(table), *options]) == 0
    shown = capsys.readouterr().out
    line = json.loads(shown.splitlines()[-1])
    assert (line["known"], line["fallbacks"]) == (2, 0)
    assert line["answers"]["8"] == 8
    frame = pl.read_parquet(tmp_path / "out" / "submission.parquet")
    assert frame.schema == {"id": pl.String, "answer": pl.Int64}
    assert dict(frame.rows()) == line["answers"]
    assert set(line["answers"]) == {"007", "8"}
    assert f"{line['right']} of 2 right" in shown
    # Without time there is no answer, and the exit code says so.
    assert main(["kaggle", "rehearse", str(table), *options, "--limit-time", "1"]) == 1
    # The solver that was still loading closes later; what it logs must not reach another test.
    for thread in threading.enumerate():
        if thread.name in ("loader", "closer"):
            thread.join(60)
            assert not thread.is_alive()
