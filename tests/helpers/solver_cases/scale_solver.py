"""A solver for workers of a cluster, whose problems say what happens to the machine.

A problem's text is a JSON object: `answer` is what the attempts give; `mark` is a file that gets a
line for each try; `kill`, `memory` and `engine` are numbers of tries that end by SIGKILL to the
worker, by a full GPU, and by an engine that ends; `sleep` is a number of seconds, and `wait` a file
that must exist before the problem ends.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.attempts.attempt import Ending, attempt_seed
from eightfold.solver.problem_set import Problem
from eightfold.solver.solver import Result

from .recorded_run import attempt_record

STORE_BYTES = 80 << 20


class ScaleSolver:
    """Does what the problems say; see the module's docstring."""

    def __init__(self, config: SolverConfig) -> None:
        self.config = config
        self.alive = True

    def solve_or_nothing(self, text: str, **options: Any) -> Result:
        """Solve a problem."""
        script: dict[str, Any] = json.loads(text)
        mark = Path(script["mark"]) if "mark" in script else None
        tries = 0
        if mark is not None:
            with mark.open("a") as file:
                file.write(f"{os.getpid()}\n")
            tries = len(mark.read_text().splitlines())
        time.sleep(script.get("sleep", 0.0))
        deadline = time.monotonic() + 120
        while "wait" in script and not Path(script["wait"]).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if tries <= script.get("kill", 0) and mark is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        records = []
        for index in range(self.config.attempts):
            record = attempt_record(index, script["answer"], float(index))
            record["seed"] = attempt_seed(self.config.seed, options["key"], index)
            if mark is not None and tries <= script.get("memory", 0):
                record.update(ending=Ending.MEMORY, detail="CUDA out of memory.", answer=None)
            if mark is not None and tries <= script.get("engine", 0):
                record.update(ending=Ending.ENGINE, detail="an illegal access", answer=None)
                self.alive = False
            options["on_attempt"](record)
            records.append(record)
        answer = records[0]["answer"]
        votes = {} if answer is None else {answer: len(records)}
        return Result(answer, votes, tuple(records), 0.01, 10 * len(records), 0, 0, "all ended")

    def close(self) -> None:
        """Do nothing."""


def make_solver(config: SolverConfig) -> ScaleSolver:
    """Return a solver."""
    return ScaleSolver(config)


def refuse(config: SolverConfig) -> ScaleSolver:
    """Fail as for a user's wrong input."""
    raise SolverError("The model is no model.")


def break_down(config: SolverConfig) -> ScaleSolver:
    """Fail as for a broken machine."""
    raise RuntimeError("no CUDA driver")


def scripted(number: int, **scripts: dict[str, Any]) -> list[Problem]:
    """Return so many problems whose answers are their numbers; `p3=...` adds to the fourth."""
    return [
        Problem(f"p{i}", json.dumps({"answer": i, **scripts.get(f"p{i}", {})}), i)
        for i in range(number)
    ]


@contextmanager
def cluster_of(cpus: Sequence[int], **head: Any) -> Iterator[Any]:
    """Yield a Ray cluster of nodes with so many CPU cores, the head first."""
    from ray.cluster_utils import Cluster

    # The monitor would kill workers if other processes need the memory, and workers, which yield to
    # all other processes by default, would hardly run beside other tests.
    unset = ("RAY_USAGE_STATS_ENABLED", "RAY_memory_monitor_refresh_ms", "RAY_worker_niceness")
    os.environ.update(dict.fromkeys(unset, "0"))
    here = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    # For the workers, which import this module; later tests must not find the tests' folders.
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [before])])
    options = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], **options, **head})
    try:
        for number in cpus[1:]:
            cluster.add_node(num_cpus=number, object_store_memory=STORE_BYTES)
        yield cluster
    finally:
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
