"""The head of a cluster restarted, addresses at which nobody answers, other wrong input (25 s)."""

from __future__ import annotations

import socket
import time
from io import StringIO
from pathlib import Path

import pytest
from helpers.free_ports import free_port
from helpers.solver_cases.scale_solver import cluster_of, make_solver, scripted

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.cli import main
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.machine_failure import Cause
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import read_lines, read_run
from eightfold.solver.scale import crew_process, ray_cluster
from eightfold.solver.scale.cluster_run import ClusterRun
from eightfold.solver.scale.crew_messages import CrewPlan
from eightfold.solver.scale.crew_process import CrewProcess

pytest.importorskip("ray")

CONFIG = SolverConfig(attempts=2, time=60)


def test_a_restarted_head_costs_no_finished_problem(tmp_path: Path) -> None:
    port = free_port()
    go_on = tmp_path / "go on"
    waiting = {f"p{i}": {"wait": str(go_on)} for i in range(3, 6)}
    shown = StringIO()
    with cluster_of((2,), gcs_server_port=port) as first:
        address = first.address
        restarted: list[object] = []

        class RestartingDisplay(ProgressDisplay):
            """Restarts the cluster once three problems are done."""

            def line(self, text: str) -> None:
                super().line(text)
                if text.startswith("3/") and not restarted:
                    for name in ("gcs_server", "raylet"):
                        for info in first.head_node.all_processes[name]:
                            info.process.kill()
                            info.process.wait()
                    first.shutdown()
                    restarted.append(cluster_of((2,), gcs_server_port=port))
                    restarted[0].__enter__()  # type: ignore[attr-defined]
                    go_on.touch()

        folder = RunFolder(tmp_path / "run", {}, resume=True)
        plan = CrewPlan(CONFIG, 2, address, factory=make_solver)
        run = ClusterRun(scripted(6, **waiting), 6, folder, CONFIG, lambda: CrewProcess(plan))
        try:
            run.run(RestartingDisplay(shown))
        finally:
            folder.close()
            if restarted:
                restarted[0].__exit__(None, None, None)  # type: ignore[attr-defined]
    records = {problem["id"]: problem for problem, _ in read_run(tmp_path / "run")}
    assert len(records) == 6
    assert len(list(read_lines(tmp_path / "run" / "problems.jsonl"))) == 6
    assert all(record["answer"] == record["truth"] for record in records.values())
    kinds = {one["cause"] for record in records.values() for one in record["infrastructure"]}
    assert kinds <= {Cause.HEAD, Cause.NODE, Cause.WORKER}
    assert "the cluster is back" in shown.getvalue()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--workers 2 --ray-address 127.0.0.1:{port}", "Nobody answers at 127.0.0.1:"),
        ("--workers 2 --ray-address no.such.host.invalid", "Nobody answers at no.such.host"),
        ("--workers 2 --ray-address ray://127.0.0.1:{port}", "give HOST:PORT"),
        ("--workers 2 --ray-address :x", "is not an address"),
        ("--workers none", "--workers: must be a number or auto"),
        ("--workers 0", "--workers must be auto or from 1"),
        ("--ray-address auto", "--ray-address needs --workers"),
        ("--gpus-per-worker 1", "--gpus-per-worker needs --workers"),
        ("--workers 2 --devices auto", "--devices is for this process"),
        ("--workers 2 --kernels-per-worker 0", "--kernels-per-worker must be from 1"),
        ("--workers 2 --gpus-per-worker -1", "--gpus-per-worker must be from 0"),
    ],
)
def test_wrong_input_is_one_sentence_and_starts_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    (tmp_path / "p.csv").write_text("id,problem,answer\na,What is 6 times 7?,42\n")
    chosen = words.format(port=free_port()).split()
    out = tmp_path / "run"
    assert main(["evaluate", str(tmp_path / "p.csv"), "--out", str(out), "--quiet", *chosen]) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_a_listener_that_is_no_head_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 1.0)
    monkeypatch.setattr("ray.init", lambda **options: time.sleep(30))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SolverError, match=f"answers at {address} is not the head of a Ray"):
            ray_cluster.RayCluster(CrewPlan(CONFIG, 1, address))
    told = "Version mismatch: The cluster was started with:\n    Ray: 2.1\n    Python: 3.9"

    def refuse(**options: object) -> None:
        raise RuntimeError(told)

    monkeypatch.setattr("ray.init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SolverError, match=r"has other versions: .*Ray: 2\.1; Python: 3\.9\."):
            ray_cluster.RayCluster(CrewPlan(CONFIG, 1, address))


def test_an_interrupted_start_of_a_cluster_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[float] = []

    class Child:
        """Is interrupted while it joins, and notes how long it is waited for."""

        def __init__(self, *arguments: object, **options: object) -> None:
            self.close = closed.append

        def ready(self, timeout: float) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(crew_process, "ChildProcess", Child)
    for address in (None, "somewhere:6379"):
        with pytest.raises(KeyboardInterrupt):
            CrewProcess(CrewPlan(CONFIG, 1, address))
    assert closed == [crew_process.CLOSE_SECONDS, crew_process.GIVE_UP_SECONDS]


def test_without_ray_workers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(SolverError, match=r"Workers need Ray; install eightfold\[ray\]"):
        ray_cluster.RayCluster(CrewPlan(CONFIG, 1))
