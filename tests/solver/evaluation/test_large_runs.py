"""Runs that do not fit into memory: lines are found again, and read when they are needed (1 s)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import PROBLEMS, SETTINGS, attempt_record, record_run

from eightfold.solver import SolverError
from eightfold.solver.evaluation.confidence_intervals import bootstrap_interval, normal_interval
from eightfold.solver.evaluation.problem_queue import ProblemQueue
from eightfold.solver.evaluation.run_folder import READ_BYTES, FinishedProblem, RunFolder
from eightfold.solver.evaluation.run_reader import iterate_run, read_lines, read_run


@pytest.mark.parametrize("length", [1, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES + 7])
@pytest.mark.parametrize("whole", [0, 2])
def test_a_partial_line_of_any_length_is_dropped(tmp_path: Path, length: int, whole: int) -> None:
    folder = tmp_path / "run"
    record_run(folder)
    path = folder / "attempts.jsonl"
    lines = path.read_text().splitlines(keepends=True)[:whole]
    path.write_text("".join(lines) + "x" * length)
    run = RunFolder(folder, SETTINGS, resume=True)
    run.begin()
    run.close()
    assert path.read_text() == "".join(lines)


def test_lines_are_found_whatever_their_order_and_form(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record_run(folder)
    expected = read_run(folder)
    path = folder / "attempts.jsonl"
    lines = path.read_text().splitlines()
    # Attempts of an earlier try, lines that another program wrote, any order.
    stale = [{"round": 99, "id": "p1", **attempt_record(0, 7, 1.0)}]
    others = [json.dumps(dict(sorted(json.loads(line).items()))) for line in lines[::2]]
    lines = [*others, *lines[1::2], *map(json.dumps, stale)]
    random.Random(0).shuffle(lines)
    path.write_text("\n".join(lines) + "\n")
    assert list(iterate_run(folder)) == expected
    assert next(iter(iterate_run(folder)))[0]["id"] == "p0"
    damaged = [line[:-9] if '"p2"' in line[:60] else line for line in lines]
    path.write_text("\n".join(damaged) + "\n")
    with pytest.raises(SolverError, match=r"Line \d+ of .*attempts\.jsonl is not JSON") as caught:
        read_run(folder)
    told = int(str(caught.value).split()[1])
    assert damaged[told - 1] not in lines, "the line's number is right"


def test_lines_may_be_forced_to_the_disk_together(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    run.sync_problems()
    run.begin()
    _, rows = zip(*read_recorded(tmp_path), strict=True)
    for row in rows:
        run.write("problems", row, sync=False)
    run.sync_problems()
    assert run.count == len(list(read_lines(tmp_path / "run" / "problems.jsonl"))) == 6
    run.close()
    again = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    assert again.finished["p4"] == FinishedProblem(4, 4)
    again.close()


def read_recorded(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Return the ids and records of the problems of a run elsewhere."""
    record_run(folder / "other")
    return [(problem["id"], problem) for problem, _ in read_run(folder / "other")]


def test_a_queue_gives_out_each_problem_once_and_those_put_off_last() -> None:
    queue = ProblemQueue(iter(PROBLEMS), 6, {"p1", "p4"}, 2)
    assert queue.left == 4
    first = queue.take()
    assert first is not None
    assert first.id == "p0"
    queue.put_off(first)
    taken = [queue.take() for _ in range(5)]
    assert [one.id if one else None for one in taken] == ["p2", "p3", "p5", "p0", None]
    assert queue.left == 0
    queue.put_off(first)
    queue.clear()
    assert (queue.take(), queue.left) == (None, 0)


def test_both_intervals_agree_for_many_values() -> None:
    rng = random.Random(1)
    values = [rng.random() ** 3 for _ in range(4000)]
    one, other = normal_interval(values), bootstrap_interval(values)
    assert one == pytest.approx(other, abs=1e-3)
