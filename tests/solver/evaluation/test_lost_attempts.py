"""Attempts that the machine failed, and not the model, are told apart and made again (2 s)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import (
    ANSWERS,
    PROBLEMS,
    SETTINGS,
    ScriptedSolver,
    silent_display,
)
from helpers.solver_cases.scripted_engine import (
    ScriptedEngine,
    ScriptedKernel,
    ScriptedPool,
    boxed,
    call,
    endings,
    scripted_solver,
)

from eightfold.sandbox.sandbox_errors import SandboxOutageError
from eightfold.solver import solver
from eightfold.solver.attempts.attempt import Ending
from eightfold.solver.cli import main
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.machine_failure import RETRIES
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import read_run
from eightfold.solver.evaluation.run_scores import summarize
from eightfold.solver.solver import Result


class FailingSolver(ScriptedSolver):
    """Loses the first attempt at one problem, a number of times."""

    def __init__(self, problem: str, times: int) -> None:
        super().__init__(ANSWERS, lambda text: None)
        self.problem, self.left = problem, times

    def solve_or_nothing(self, text: str, **options: object) -> Result:
        lost = text == self.problem and self.left > 0
        self.left -= lost
        report = options["on_attempt"]

        def on_attempt(record: dict[str, object]) -> None:
            if lost and record["attempt"] == 0:
                record.update(ending=Ending.SANDBOX, detail="no space left", answer=None)
            report(record)  # type: ignore[operator]

        return super().solve_or_nothing(text, **{**options, "on_attempt": on_attempt})


def evaluate(folder: Path, times: int) -> tuple[FailingSolver, list[dict[str, object]]]:
    """Run an evaluation whose second problem loses an attempt `times` times."""
    run = RunFolder(folder, SETTINGS, resume=True)
    solver = FailingSolver("text 1", times)
    Evaluation(solver, PROBLEMS, len(PROBLEMS), run).run(silent_display())
    run.close()
    return solver, [problem for problem, _ in read_run(folder)]


def test_the_command_ends_with_exit_code_3_until_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = RETRIES + 1

    class Scripted(FailingSolver):
        on_gpu = False

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__("text 1", times)

        def __enter__(self) -> Scripted:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(solver, "Solver", Scripted)
    lines = (json.dumps({"id": p.id, "problem": p.text, "answer": p.answer}) for p in PROBLEMS)
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    command = ["evaluate", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(command) == 3
    assert "The sandbox failed in 1 attempt, whenever they were made" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["lost"] == 1
    times = 0
    assert main([*command, "--resume"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["lost"] == 0


def test_a_problem_with_lost_attempts_is_solved_again(tmp_path: Path) -> None:
    solver, problems = evaluate(tmp_path, times=1)
    assert solver.solved.count("text 1") == 2
    assert len(problems) == 6
    assert all(problem["lost"] == 0 for problem in problems)
    tries = {problem["id"]: tries for problem, tries in read_run(tmp_path)}
    assert [one["ending"] for one in tries["p1"]] == ["answered"] * 3  # those of the last round
    assert summarize(read_run(tmp_path), SETTINGS)["lost"] == 0


def test_what_stays_lost_is_recorded_and_a_resumed_run_solves_it(tmp_path: Path) -> None:
    solver, problems = evaluate(tmp_path, times=RETRIES + 1)
    assert solver.solved.count("text 1") == RETRIES + 1
    assert [problem["id"] for problem in problems if problem["lost"]] == ["p1"]
    assert summarize(read_run(tmp_path), SETTINGS)["lost"] == 1
    solver, problems = evaluate(tmp_path, times=0)
    assert solver.solved == ["text 1"]
    assert not any(problem["lost"] for problem in problems)


class OutagePool(ScriptedPool):
    """Can make no kernel for a number of requests."""

    def __init__(self, requests: int) -> None:
        super().__init__()
        self.requests = requests

    def lease(self, timeout: float | None = None) -> ScriptedKernel:
        self.requests -= 1
        if self.requests >= 0:
            raise SandboxOutageError("No kernel became ready in time. The disk is full.")
        return super().lease(timeout)


def test_an_attempt_waits_for_the_end_of_an_outage() -> None:
    engine = ScriptedEngine([[call("1"), boxed(4)]])
    with scripted_solver(engine, OutagePool(5), attempts=1) as solver:
        result = solver.solve("one")
    assert result.answer == 4


def test_an_outage_that_outlasts_the_problem_is_the_reason_of_its_end() -> None:
    engine = ScriptedEngine([[call("1"), boxed(4)]])
    with scripted_solver(engine, OutagePool(10**9), attempts=1, time=1.0) as solver:
        result = solver.solve("one")
    assert endings(result) == ["sandbox failed"]
    assert "The disk is full." in result.attempts[0]["detail"]
