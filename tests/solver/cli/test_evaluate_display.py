"""Messages of `evaluate`: problems, faults, interrupts, full disks; a scripted solver (2 s)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from helpers.solver_cases.recorded_run import ANSWERS, PROBLEMS, ScriptedSolver

from eightfold.solver import Result, solver
from eightfold.solver.cli import main
from eightfold.solver.cli.commands import evaluate_command
from eightfold.solver.evaluation import run_folder
from eightfold.solver.evaluation.evaluation_run import Evaluation


class ScriptedCommand:
    """Runs `evaluate` on the scripted problems."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.before: Callable[[str], object] = lambda text: None
        self.faults: dict[str, tuple[str, ...]] = {}
        self.distances: dict[str, float] = {}
        command = self

        class Scripted(ScriptedSolver):
            on_gpu = False

            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(ANSWERS, lambda text: command.before(text))

            def __enter__(self) -> Scripted:
                return self

            def __exit__(self, *error: object) -> None:
                pass

            def solve_or_nothing(self, text: str, **options: Any) -> Result:
                result = super().solve_or_nothing(text, **options)
                faults = command.faults.get(text, ())
                distance = command.distances.get(text)
                return Result(**{**vars(result), "faults": faults, "distance": distance})

        monkeypatch.setattr(solver, "Solver", Scripted)
        lines = (json.dumps({"id": p.id, "problem": p.text, "answer": p.answer}) for p in PROBLEMS)
        (folder / "p.jsonl").write_text("\n".join(lines))

    def run(self, *options: str) -> int:
        """Run the command and return its exit code."""
        out = str(self.folder / "run")
        return main(["evaluate", str(self.folder / "p.jsonl"), "--out", out, *options])


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedCommand:
    return ScriptedCommand(tmp_path, monkeypatch)


def test_each_problem_has_a_line_and_the_end_says_where_more_is(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    command.faults = {"text 1": ("a kernel died",)}
    assert command.run() == 0
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert "1/6 p0: 0 (right), 2 of 3 votes, 1 s" in lines
    assert "2/6 p1: 1 (right), 2 of 3 votes, 1 s, 1 fault" in lines
    assert "6/6 p5: 5 (right), 1 of 3 votes, 1 s" in lines
    assert f"each problem: {command.folder / 'run' / 'problems.jsonl'}" in shown.out
    assert "6 problems, 18 attempts, 180 tokens, 36 calls, 0 errors" in shown.out
    assert "pass@k leaves out 2 attempts that a consensus cancelled" in shown.out
    assert main(["replay", str(command.folder / "run")]) == 0
    assert "pass@k leaves out 2 attempts" in capsys.readouterr().out


def test_problems_unlike_the_training_are_named(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    command.distances = {"text 1": 1.0, "text 2": 1.5, "text 4": 7.0}
    assert command.run("--quiet") == 0
    told = capsys.readouterr().out
    assert "unlike the model's training: 2 problems, not to be trusted: p2, p4\n" in told


def test_quiet_runs_name_their_faults_once(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    same = "the engine's step failed"
    command.faults = {f"text {i}": (same, same) for i in range(6)} | {"text 2": ("another",)}
    assert command.run("--quiet") == 0
    assert capsys.readouterr().err.splitlines() == [
        f"fault in p0, p1, p3, p4, p5: {same}",
        "fault in p2: another",
    ]


def test_truths_that_no_attempt_can_give_are_told_at_the_start(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"q{i}", "problem": f"text {i}", "answer": i - 3} for i in range(4)]
    (command.folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert command.run("--quiet") == 0
    told = capsys.readouterr().err
    assert told.startswith("Answers are from 0 to 99999, so 3 problems with another known answer")
    assert told.endswith("q0, q1, q2.\n")


def test_an_interrupt_says_how_much_is_done_and_how_to_go_on(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    command.before = lambda text: text == "text 3" and go_on.wait(100)
    status = Evaluation.status

    def interrupted(evaluation: Evaluation) -> str:
        if evaluation.tally.done == 3:
            raise KeyboardInterrupt
        return status(evaluation)

    monkeypatch.setattr(Evaluation, "status", interrupted)
    assert command.run() == 130
    go_on.set()
    assert capsys.readouterr().err.endswith(
        "Interrupted; 3 of 6 problems done; --resume goes on.\n"
    )
    monkeypatch.setattr(Evaluation, "status", status)
    assert command.run("--resume") == 0


def test_an_interrupt_of_the_summary_says_that_the_problems_are_done(
    command: ScriptedCommand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_command, "_report", interrupted)
    assert command.run() == 130
    assert capsys.readouterr().err.endswith(
        "Interrupted; 6 of 6 problems done; --resume goes on.\n"
    )
    monkeypatch.undo()
    assert command.run("--resume") == 0
    assert (command.folder / "run" / "summary.json").is_file()


@pytest.mark.parametrize("full", ["attempts", "problems"])
def test_a_full_disk_ends_the_run_with_the_path(
    full: str,
    command: ScriptedCommand,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Path.open

    def on_full_disk(path: Path, *args: Any, **options: Any) -> TextIO:
        found = Path("/dev/full") if path.name == f"{full}.jsonl" and args == ("a",) else path
        return opened(found, *args, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(run_folder.Path, "open", on_full_disk)
    assert command.run("--quiet") == 3
    path = command.folder / "run" / f"{full}.jsonl"
    assert capsys.readouterr().err == f"eightfold evaluate: {path}: No space left on device.\n"
    monkeypatch.setattr(run_folder.Path, "open", opened)
    assert command.run("--quiet", "--resume") == 0, "nothing was lost"
