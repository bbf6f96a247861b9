"""What is shown of a cluster, and what is told of problems that were set aside (1 s)."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import PROBLEMS, record_run

from eightfold.solver.cli.commands import evaluate_command
from eightfold.solver.evaluation.machine_failure import Cause, MachineFailure
from eightfold.solver.evaluation.problem_record import set_aside_record
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import iterate_run, read_run
from eightfold.solver.report.report_writer import write_report
from eightfold.solver.scale.cluster_view import cluster_line, cluster_view
from eightfold.solver.scale.crew_messages import CrewReport, WorkerState

WORKERS = (
    WorkerState(1, "10.0.0.1", "solving", ("a", "b"), 7, 812.4),
    WorkerState(2, "10.0.0.2", "solving", ("c",), 5, 700.0),
    WorkerState(4, "10.0.0.2", "starting"),
)


def test_one_line_holds_speeds_and_losses() -> None:
    assert cluster_line(CrewReport()) == "0 workers"
    report = CrewReport((), 0, WORKERS, lost=2, back=1)
    assert cluster_line(report, heads_lost=1) == (
        "3 workers (1 starting, 2 lost, 1 back, cluster lost 1 time, 812 + 700 tokens/s)"
    )
    many = tuple(WorkerState(i, "n", "solving", ("x",), 0, 100.0 + i) for i in range(20))
    assert cluster_line(CrewReport(workers=many)) == "20 workers (100 to 119 tokens/s each)"


def test_a_table_has_a_row_for_each_worker_that_fits() -> None:
    rows = cluster_view("status", CrewReport(workers=WORKERS), 60, 20).plain.splitlines()
    assert rows[0] == "status"
    assert rows[2].split() == ["1", "10.0.0.1", "solving", "7", "812", "a,", "b"]
    many = CrewReport(workers=WORKERS * 10)
    rows = cluster_view("status", many, 40, 12).plain.splitlines()
    assert len(rows) <= 12
    assert rows[-1] == "and 23 workers more"
    assert all(len(row) <= 40 for row in rows)


def test_what_was_set_aside_is_named_and_ends_with_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    record_run(folder)
    lines = (folder / "problems.jsonl").read_text().splitlines()
    (folder / "problems.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    run = RunFolder(folder, {"attempts": 3, "seed": 0}, resume=True)
    assert len(run.finished) == 5
    run.begin()
    failures = [
        MachineFailure(Cause.WORKER, "signal 9", number, "10.0.0.1") for number in (1, 2, 3)
    ]
    run.write("problems", {"round": run.round, **set_aside_record(PROBLEMS[5], 3, failures)})
    run.close()
    assert evaluate_command._report(folder, {"attempts": 3}, as_json=False) == 3
    told = capsys.readouterr().err
    assert "Set aside, because the machine failed each time: p5." in told
    assert "The machine failed in 3 attempts" in told
    assert "fault in p5: set aside: worker lost, 3 times in all" in told
    problem, tries = read_run(folder)[-1]
    assert (problem["id"], tries) == ("p5", [])
    assert [one["worker"] for one in problem["infrastructure"]] == [1, 2, 3]
    write_report(folder, tmp_path / "page")
    assert [one["id"] for one, _ in iterate_run(folder)] == [f"p{i}" for i in range(6)]
    again = RunFolder(folder, {"attempts": 3, "seed": 0}, resume=True)
    assert "p5" not in again.finished, "it is solved again when the run is resumed"
    again.close()
