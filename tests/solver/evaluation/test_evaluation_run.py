"""Evaluations record everything, and can be killed and resumed (1 s)."""

from __future__ import annotations

import json
import threading
from io import StringIO
from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import (
    ANSWERS,
    PROBLEMS,
    SETTINGS,
    ScriptedSolver,
    attempt_record,
    record_run,
    silent_display,
)

from eightfold.solver.attempts.engine_loop import EngineLostError
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import read_lines, read_run
from eightfold.solver.evaluation.run_tally import RunTally
from eightfold.solver.time_budget import Budget, BudgetConfig


def test_every_problem_and_attempt_is_recorded(tmp_path: Path) -> None:
    _, evaluation = record_run(tmp_path / "run", parallel=3)
    run = read_run(tmp_path / "run")
    assert sorted(problem["id"] for problem, _ in run) == [f"p{i}" for i in range(6)]
    assert all([one["attempt"] for one in tries] == [0, 1, 2] for _, tries in run)
    assert evaluation.status().startswith("6/6 problems | ")
    fresh = RunTally(6, RunFolder(tmp_path / "fresh", {}, resume=False))
    assert fresh.status(0.0) == "0/6 problems | 0 s", "nothing is said of answers yet"
    assert evaluation.tally.known == 6


def test_a_killed_run_resumes_without_repeating_or_losing_problems(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def die(text: str) -> None:
        if text == "text 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_run(folder, die)
    # As a kill leaves it: an attempt at an unfinished problem, and a partial line in each file.
    with (folder / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "p3", "round": 1, **attempt_record(0, 77, 1.0)}) + "\n")
        file.write('{"id": "p3", "attempt": 1, "tex')
    with (folder / "problems.jsonl").open("a") as file:
        file.write('{"id": "p3", "answ')
    solver, _ = record_run(folder)
    assert solver.solved == ["text 3", "text 4", "text 5"]
    run = {problem["id"]: tries for problem, tries in read_run(folder)}
    assert len(run) == 6
    assert [one["answer"] for one in run["p3"]] == [3, 4, 3]
    solver, _ = record_run(folder)
    assert solver.solved == []


def test_a_problem_cut_off_by_a_dead_engine_is_not_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = RunFolder(folder, SETTINGS, resume=True)
    solver = ScriptedSolver(ANSWERS, lambda text: None)
    solver.before = lambda text: setattr(solver, "alive", text != "text 2")
    with pytest.raises(EngineLostError, match="p2"):
        Evaluation(solver, PROBLEMS, len(PROBLEMS), run).run(silent_display())
    run.close()
    assert [problem["id"] for problem, _ in read_run(folder)] == ["p0", "p1"]


def test_a_problem_cut_off_by_an_interrupt_is_not_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    resume = threading.Event()

    class InterruptedDisplay(ProgressDisplay):
        def update(self, text: str) -> None:
            raise KeyboardInterrupt

    run = RunFolder(folder, SETTINGS, resume=True)
    solver = ScriptedSolver(ANSWERS, lambda text: resume.wait(100))
    evaluation = Evaluation(solver, PROBLEMS, len(PROBLEMS), run)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(InterruptedDisplay(StringIO(), enabled=False))
    resume.set()
    for thread in threading.enumerate():
        if thread.name.startswith("problem-"):
            thread.join(100)
    run.close()
    assert list(read_lines(folder / "problems.jsonl")) == []


def test_an_interrupt_between_the_first_problems_is_one_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solving, go_on = threading.Event(), threading.Event()
    started: list[threading.Thread] = []

    class InterruptedThread(threading.Thread):
        def start(self) -> None:
            if started:
                assert solving.wait(100)
                raise KeyboardInterrupt
            started.append(self)
            super().start()

    def solve(text: str) -> None:
        solving.set()
        go_on.wait(100)

    monkeypatch.setattr(threading, "Thread", InterruptedThread)
    run = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    solver = ScriptedSolver(ANSWERS, solve)
    evaluation = Evaluation(solver, PROBLEMS, len(PROBLEMS), run, parallel=2)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(silent_display())
    go_on.set()
    started[0].join(100)
    run.close()
    assert solver.solved == ["text 0"]
    assert list(read_lines(tmp_path / "run" / "problems.jsonl")) == []


def test_the_budget_grants_time_and_ends_the_run(tmp_path: Path) -> None:
    budget = Budget(BudgetConfig(limit=1000, reserve=100, cap=300, margin=0), spent_before=0.0)
    solver, _ = record_run(tmp_path / "run", budget=budget)
    assert solver.granted == [100.0] * 6  # at most the solver's own time for a problem
    late = Budget(BudgetConfig(limit=1000, margin=0), spent_before=1000.0)
    solver, evaluation = record_run(tmp_path / "late", budget=late)
    assert solver.solved == []
    assert evaluation.out_of_time


def test_parallel_problems_overlap(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=100)
    record_run(tmp_path / "run", lambda text: both.wait(), parallel=2)
    assert not both.broken
