"""The bundled model on 1, 2 and 3 workers: records, report, replay, and Ray Data (40 s)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.scale_solver import cluster_of

from eightfold.solver import BatchSolver, Columns, RecordedRun, SolverConfig, evaluate_on_ray
from eightfold.solver.cli import main

ray = pytest.importorskip("ray")

CONFIG = SolverConfig(attempts=2, early_stop=0, kernels=2, seed=3)
SAME = ("--attempts", "2", "--early-stop", "0", "--seed", "3", "--quiet")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of two cores, and a session of this process."""
    with cluster_of((2, 2)) as started:
        ray.init(address=started.address, log_to_driver=False, logging_level="critical")
        yield started
        ray.shutdown()


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of problems that the bundled model knows."""
    path = tmp_path_factory.mktemp("problems") / "p.jsonl"
    rows = [
        {"name": f"n{i}", "question": f"What is the remainder when $7^{{{i}}}$ is divided by 66?"}
        for i in range(901, 906)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def tokens(run: RecordedRun) -> dict[str, list[Any]]:
    """Return the answer and all tokens of each attempt at each problem."""
    return {
        problem["id"]: [
            (one["answer"], one["seed"], [turn["tokens"] for turn in one["turns"]]) for one in tries
        ]
        for problem, tries in run.records
    }


def test_workers_change_neither_answers_nor_tokens(
    cluster: Any, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        evaluate_on_ray(
            problems,
            tmp_path / str(workers),
            CONFIG,
            workers=workers,
            columns=Columns("name", "question"),
            quiet=True,
        )
        for workers in (1, 2, 3)
    ]
    assert len(runs[0].records) == 5
    assert tokens(runs[0]) == tokens(runs[1]) == tokens(runs[2])
    answers = {problem["id"]: problem["answer"] for problem, _ in runs[0].records}
    assert answers == {f"n{i}": pow(7, i, 66) for i in range(901, 906)}
    # A run on workers is continued in this process, and read, as any other.
    (tmp_path / "3" / "summary.json").unlink()
    words = ("--id", "name", "--question", "question", "--out", str(tmp_path / "3"))
    assert main(["evaluate", str(problems), *words, *SAME]) == 0
    assert (tmp_path / "3" / "summary.json").is_file()
    assert main(["replay", str(tmp_path / "3")]) == 0
    assert main(["report", str(tmp_path / "3"), "--out", str(tmp_path / "page")]) == 0
    assert "5 problems, 10 attempts" in capsys.readouterr().out


def test_a_pipeline_of_ray_data_has_answers(cluster: Any) -> None:
    rows = [
        {"id": f"r{i}", "problem": f"What is the remainder when $5^{{{i}}}$ is divided by 66?"}
        for i in range(801, 804)
    ]
    ray.data.DataContext.get_current().enable_progress_bars = False
    solved = ray.data.from_items(rows).map_batches(
        BatchSolver,
        fn_constructor_kwargs={"config": CONFIG, "parallel": 2},
        batch_size=2,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    found = {row["id"]: row for row in solved.take_all()}
    assert {id_: row["solved_answer"] for id_, row in found.items()} == {
        f"r{i}": pow(5, i, 66) for i in range(801, 804)
    }
    assert json.loads(found["r801"]["solved_votes"]) == {str(pow(5, 801, 66)): 2}
    assert found["r801"]["problem"] == rows[0]["problem"]
    assert all(row["solved_tokens"] > 0 for row in found.values())
