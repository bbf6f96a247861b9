"""Runs on a real Ray cluster of two nodes, and what the machine does to them (35 s)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases import scale_solver
from helpers.solver_cases.scale_solver import cluster_of, make_solver, scripted

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.machine_failure import RETRIES, Cause
from eightfold.solver.evaluation.problem_record import SET_ASIDE
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import read_lines, read_run
from eightfold.solver.evaluation.run_scores import summarize
from eightfold.solver.problem_set import Problem
from eightfold.solver.scale.cluster_run import MAX_KILLS, ClusterRun
from eightfold.solver.time_budget import Budget, BudgetConfig

ray = pytest.importorskip("ray")

SETTINGS = {"attempts": 2}
CONFIG = SolverConfig(attempts=2, time=60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of two cores, and a session of this process."""
    with cluster_of((2, 2)) as started:
        ray.init(address=started.address, log_to_driver=False, logging_level="critical")
        yield started
        ray.shutdown()


def run_on(
    folder: Path, problems: Iterable[Problem], total: int, *, shown: StringIO | None = None,
    budget: Budget | None = None, **plan: Any,
) -> tuple[ClusterRun, dict[str, dict[str, Any]]]:  # fmt: skip
    """Run or resume a run; return it and the records of its problems."""
    from eightfold.solver.scale.crew import Crew
    from eightfold.solver.scale.crew_messages import CrewPlan

    chosen = CrewPlan(CONFIG, **{"workers": 2, "factory": make_solver, **plan})
    recorded = RunFolder(folder, SETTINGS, resume=True)
    display = ProgressDisplay(shown or StringIO(), enabled=shown is not None)
    run = ClusterRun(
        problems, total, recorded, CONFIG, lambda: Crew(chosen).placed(), budget
    )  # fmt: skip
    try:
        run.run(display)
    finally:
        recorded.close()
    records = {problem["id"]: problem for problem, _ in read_run(folder)}
    lines = Counter(record["id"] for record in read_lines(folder / "problems.jsonl"))
    assert set(lines.values()) <= {1}, "no problem is recorded twice"
    return run, records


def causes(record: dict[str, Any]) -> list[str]:
    """Return what the machine did to a problem."""
    return [one["cause"] for one in record["infrastructure"]]


def test_problems_that_kill_their_worker_cost_no_others(cluster: Any, tmp_path: Path) -> None:
    marks = {f"p{i}": str(tmp_path / f"mark{i}") for i in range(30)}
    problems = scripted(
        30,
        p3={"kill": 1, "mark": marks["p3"]},
        p5={"kill": 99, "mark": marks["p5"], "sleep": 0.3},
        **{f"p{i}": {"mark": marks[f"p{i}"], "sleep": 0.3} for i in (4, 6)},
    )
    shown = StringIO()
    run, records = run_on(tmp_path / "run", problems, 30, parallel=3, shown=shown)
    assert len(records) == 30
    assert run.set_aside == ["p5"]
    for name, record in records.items():
        if name != "p5":
            assert record["answer"] == record["truth"], name
    aside = records["p5"]
    assert (aside["stopped"], aside["answer"], aside["lost"]) == (SET_ASIDE, None, 2)
    own = [one["cause"] for one in aside["infrastructure"] if not one["shared"]]
    assert own == [Cause.WORKER] * MAX_KILLS
    assert len(causes(aside)) <= MAX_KILLS + 1, "after the first loss it is alone"
    assert MAX_KILLS <= Path(marks["p5"]).read_text().count("\n") <= MAX_KILLS + 1
    assert Cause.WORKER in causes(records["p3"])
    assert all(one["worker"] and one["node"] for one in aside["infrastructure"])
    assert run._report.lost >= MAX_KILLS + 1
    text = shown.getvalue()
    assert "p5: no answer (wrong, 5 is right), 0 of 0 votes" in text
    assert "it is set aside after" in text
    assert "worker lost" in text
    assert "OOM killer" not in text, "Ray's guesses are left out"
    summary = summarize(read_run(tmp_path / "run"), SETTINGS)
    assert (summary["problems"], summary["lost"]) == (30, 2)
    # The machine is mended: what was lost is made again, and nothing else.
    mended = scripted(30, **{name: {"mark": str(tmp_path / f"again{name}")} for name in marks})
    folder = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    assert set(marks) - set(folder.finished) == {"p5"}
    folder.close()
    lines = (tmp_path / "run" / "problems.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["id"] != "p5"]
    (tmp_path / "run" / "problems.jsonl").write_text("\n".join(kept) + "\n")
    _, records = run_on(tmp_path / "run", mended, 30)
    assert len(list(tmp_path.glob("again*"))) == 1
    assert all(record["answer"] == record["truth"] for record in records.values())


def test_a_full_gpu_costs_no_other_problem(cluster: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark9"
    problems = scripted(
        12,
        p7={"memory": 1, "mark": str(tmp_path / "mark7")},
        p9={"memory": 99, "mark": str(mark)},
    )
    run, records = run_on(tmp_path / "run", problems, 12, parallel=3)
    assert run.set_aside == []
    for name, record in records.items():
        assert record["answer"] == (None if name == "p9" else record["truth"]), name
    assert causes(records["p7"])[0] == Cause.MEMORY
    assert set(causes(records["p9"])) == {Cause.MEMORY}
    assert records["p9"]["lost"] == 2
    assert mark.read_text().count("\n") == RETRIES + 1
    folder = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    assert {"p7", "p9"} - set(folder.finished) == {"p9"}, "it is made again by --resume"
    folder.close()


def test_an_engine_that_ends_is_replaced(cluster: Any, tmp_path: Path) -> None:
    problems = scripted(12, p5={"engine": 1, "mark": str(tmp_path / "mark5")})
    run, records = run_on(tmp_path / "run", problems, 12, parallel=3)
    assert run.set_aside == []
    assert all(record["answer"] == record["truth"] for record in records.values())
    assert causes(records["p5"]) == [Cause.ENGINE]


def test_nodes_join_and_go(cluster: Any, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    waiting = {f"p{i}": {"wait": str(go_on)} for i in range(2, 8)}
    runs: list[ClusterRun] = []
    told: list[str] = []

    class ChangingDisplay(ProgressDisplay):
        """Adds a node, and takes it away once a worker solves something there."""

        added: Any = None

        def view(self, status: str, make: object) -> None:
            workers = runs[0]._report.workers
            busy = [one for one in workers if one.state == "solving"]
            if self.added is None and len(busy) == 2:
                self.added = cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
            elif self.added and len(busy) == 3:
                told.append(status)
                cluster.remove_node(self.added, allow_graceful=False)
                self.added = False
            elif self.added is False and runs[0]._report.lost:
                told.append(status)
                go_on.touch()

    from eightfold.solver.scale.crew import Crew
    from eightfold.solver.scale.crew_messages import CrewPlan

    folder = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    plan = CrewPlan(CONFIG, None, factory=make_solver)
    runs.append(ClusterRun(scripted(8, **waiting), 8, folder, CONFIG, lambda: Crew(plan).placed()))
    runs[0].run(ChangingDisplay(StringIO()))
    folder.close()
    records = [problem for problem, _ in read_run(tmp_path / "run")]
    assert all(record["answer"] == record["truth"] for record in records)
    assert len(records) == 8
    assert [causes(record) for record in records if causes(record)] == [[Cause.NODE]]
    assert "3 workers" in told[0]
    assert "1 lost, 0 back" in told[1]


def test_an_interrupt_leaves_a_run_that_can_be_resumed(cluster: Any, tmp_path: Path) -> None:
    class InterruptedDisplay(ProgressDisplay):
        def line(self, text: str) -> None:
            if text.startswith("3/"):
                raise KeyboardInterrupt

    from eightfold.solver.scale.crew import Crew
    from eightfold.solver.scale.crew_messages import CrewPlan

    folder = RunFolder(tmp_path / "run", SETTINGS, resume=True)
    plan = CrewPlan(CONFIG, 2, factory=make_solver)
    run = ClusterRun(scripted(9), 9, folder, CONFIG, lambda: Crew(plan).placed())
    with pytest.raises(KeyboardInterrupt):
        run.run(InterruptedDisplay(StringIO()))
    folder.close()
    before = [record["id"] for record in read_lines(tmp_path / "run" / "problems.jsonl")]
    assert 3 <= len(before) < 9
    _, records = run_on(tmp_path / "run", scripted(9), 9)
    assert len(records) == 9


def test_a_budget_ends_the_run(cluster: Any, tmp_path: Path) -> None:
    late = Budget(BudgetConfig(limit=1000, margin=0), spent_before=1000.0)
    run, records = run_on(tmp_path / "late", scripted(4), 4, budget=late)
    assert (run.out_of_time, len(records)) == (True, 0)
    budget = Budget(BudgetConfig(limit=1000, reserve=100, cap=300, margin=0), spent_before=0.0)
    run, records = run_on(tmp_path / "run", scripted(4), 4, budget=budget)
    assert [record["granted"] for record in records.values()] == [60.0] * 4


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


PROGRAM = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from helpers.solver_cases.scale_solver import make_solver, scripted
from eightfold.solver import SolverConfig
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.scale.cluster_run import ClusterRun
from eightfold.solver.scale.crew_messages import CrewPlan
from eightfold.solver.scale.crew_process import CrewProcess
config = SolverConfig(attempts=2, time=60)
problems = scripted(8, **{{f"p{{i}}": {{"mark": {mark!r}, "wait": {wait!r}}} for i in range(3, 8)}})
plan = CrewPlan(config, 2, {address!r}, factory=make_solver)
run = ClusterRun(problems, 8, RunFolder(Path({folder!r}), {{}}, resume=True), config,
                 lambda: CrewProcess(plan))
run.run(ProgressDisplay(sys.stderr))
"""


def test_a_killed_driver_leaves_no_worker_and_is_resumed(cluster: Any, tmp_path: Path) -> None:
    mark, folder, wait = tmp_path / "mark", tmp_path / "run", tmp_path / "wait"
    program = PROGRAM.format(
        path=sys.path,
        mark=str(mark),
        wait=str(wait),
        folder=str(folder),
        address=cluster.address,
    )
    driver = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 120
    while not mark.exists() or len(mark.read_text().split()) < 2:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    workers = [int(pid) for pid in mark.read_text().split()]
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in workers), "the workers end with their driver"
    finished = [record["id"] for record in read_lines(folder / "problems.jsonl")]
    assert sorted(finished) == ["p0", "p1", "p2"]
    wait.touch()
    resumed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    records = {problem["id"]: problem for problem, _ in read_run(folder)}
    assert len(records) == len(list(read_lines(folder / "problems.jsonl"))) == 8
    assert mark.read_text().count("\n") == 2 + 5, "no finished problem was solved again"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"workers": 99}, "99 workers would take as many CPU cores, but the cluster has 4"),
        ({"gpus": 2}, r"2 workers need 4 GPUs \(2 each\), but the cluster has 0"),
        ({"workers": None, "gpus": 1}, r"A worker needs 1 GPU \(1 each\), but the cluster has 0"),
        ({"workers": 0}, "workers must be auto or from 1"),
        ({"factory": scale_solver.refuse}, "The model is no model"),
    ],
)
def test_wrong_input_starts_nothing(
    cluster: Any, tmp_path: Path, plan: dict[str, Any], message: str
) -> None:
    with pytest.raises(SolverError, match=message):
        run_on(tmp_path / "run", scripted(2), 2, **plan)


def test_a_machine_on_which_no_worker_starts_ends_the_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eightfold.solver.scale.crew.MAX_STARTS", 1)
    with pytest.raises(OSError, match=r"No worker starts on .*: no CUDA driver"):
        run_on(tmp_path / "run", scripted(2), 2, factory=scale_solver.break_down)


def test_a_node_with_other_versions_gets_no_worker(cluster: Any) -> None:
    from eightfold.solver.scale.crew import Crew
    from eightfold.solver.scale.crew_messages import CrewPlan, WorkersLostError
    from eightfold.solver.scale.ray_cluster import RayCluster

    plan = CrewPlan(CONFIG, 2, factory=make_solver)
    joined = RayCluster(plan)
    joined.versions = {**joined.versions, "torch": "1.0"}
    with pytest.raises(SolverError, match=r"Node .* has torch .*, not 1\.0 as here; install the s"):
        joined._check_nodes(joined.nodes())
    crew = Crew(plan)
    crew._cluster.versions = joined.versions
    notes: list[str] = []

    def until_none_is_left() -> None:
        for _ in range(400):
            notes.extend(crew.placed().exchange([], 0.25).notes)

    with pytest.raises(WorkersLostError, match=r"not 1\.0 as here"):
        until_none_is_left()
    assert any("it gets no worker" in note for note in notes)
    crew.close()
