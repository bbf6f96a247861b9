"""Measure runs over many problems: control plane, workers on two nodes, and GPUs of one host.

    python benchmarks/scale.py control     # a solver that answers at once, 4 workers
    python benchmarks/scale.py workers     # the bundled model, 1 and 3 CPU workers, two nodes
    python benchmarks/scale.py gpus --gpus 1,2,4,8 [--shapes gemma-4-31b-shapes]
    python benchmarks/scale.py devices     # one problem on one engine, and on an engine a device

`control` and `workers` make a Ray cluster of two nodes here, and end it. `control` needs
300 problems a second over 4 workers, and a driver whose memory does not grow between a tenth and
all of its problems by more than 100 bytes for each. `gpus` takes the first N GPUs of this machine,
one count after the other, a worker on each; the ideal is N times the first row. With `--shapes` the
weights are random, and each attempt has `--tokens` tokens. `--kill` ends one worker in the middle.
`devices` needs equal tokens, and 2N attempts on two GPUs in at most the time of N on one. Prints
the limits beside the figures, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.model_shapes import SHAPES
from support.scale.stand_in_solvers import instant_solver, shape_solver

from eightfold.common.terminal_table import Column, format_table
from eightfold.demo.problems import take
from eightfold.solver import Solver, SolverConfig
from eightfold.solver.devices.device_list import choose_devices
from eightfold.solver.display.progress_display import ProgressDisplay
from eightfold.solver.evaluation.run_folder import RunFolder
from eightfold.solver.evaluation.run_reader import iterate_run
from eightfold.solver.evaluation.run_scores import summarize
from eightfold.solver.problem_set import Problem, ProblemSet
from eightfold.solver.scale.cluster_run import ClusterRun
from eightfold.solver.scale.crew_messages import CrewPlan
from eightfold.solver.scale.crew_process import CrewProcess

STORE_BYTES = 100 << 20
RATE_LIMIT = 300  # problems a second
GROWTH_LIMIT = 100  # bytes of the driver for each problem
SHARES = {2: 0.975, 4: 0.97, 8: 0.9625}  # of the ideal: 1.95x on 2 GPUs, 7.7x on 8
MAX_SPREAD = 1024  # attempts, more than there are devices


class WatchingDisplay(ProgressDisplay):
    """Notes when what happened, and the memory of this process; shows nothing.

    Args:
        kill: called once, when a third of the problems are done.
    """

    def __init__(self, run_total: int, kill: Callable[[], None] | None = None) -> None:
        super().__init__(sys.stderr, enabled=False)
        self.began = time.monotonic()
        self.total, self.done = run_total, 0
        self.first_ready: float | None = None
        self.all_ready: float | None = None
        self.memory: dict[int, int] = {}  # bytes, by the number of problems done
        self.kill = kill
        self.notes: list[str] = []
        self.ended = self.began
        self.run: ClusterRun | None = None

    def line(self, text: str) -> None:
        """Note a finished problem, or a sentence."""
        if "/" in text.partition(" ")[0]:
            self.done += 1
            self.ended = time.monotonic()
            if self.done % max(1, self.total // 10) == 0:
                self.memory[self.done] = resident_bytes()
        else:
            self.notes.append(text)

    def view(self, status: str, make: object) -> None:
        """Note when workers are ready."""
        if self.run is None:
            return
        workers = self.run._report.workers
        now = time.monotonic() - self.began
        ready = sum(worker.state != "starting" for worker in workers)
        if ready and self.first_ready is None:
            self.first_ready = now
        if workers and ready == len(workers) and self.all_ready is None:
            self.all_ready = now
        if self.kill is not None and self.done * 3 >= self.total:
            self.kill()
            self.kill = None


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def host_bytes() -> int:
    """Return the memory of the host that is in use."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {name: int(value.split()[0]) << 10 for name, value in lines.items()}
    return sizes["MemTotal"] - sizes["MemAvailable"]


def run_problems(
    problems: Any, total: int, plan: CrewPlan, kill: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Solve the problems on a crew, and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="scale"))
    display = WatchingDisplay(total, kill)
    try:
        recorded = RunFolder(folder / "run", {}, resume=True)
        run = ClusterRun(problems, total, recorded, plan.config, lambda: CrewProcess(plan))
        display.run = run
        run.run(display)
        recorded.close()
        used = host_bytes()
        summary = summarize(iterate_run(folder / "run"), {"attempts": plan.config.attempts})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert summary["problems"] == total
    started = display.all_ready or 0.0
    seconds = display.ended - display.began - started
    return {
        "workers": plan.workers,
        "problems": total,
        "seconds": round(seconds, 2),
        "problems_per_hour": round(total / seconds * 3600),
        "tokens_per_second": round(summary["tokens"] / seconds),
        "first_ready_s": round(display.first_ready or 0.0, 2),
        "all_ready_s": round(started, 2),
        "driver_mb": {done: round(size / 1e6, 1) for done, size in display.memory.items()},
        "driver_mb_end": round(resident_bytes() / 1e6, 1),
        "host_gb": round(used / 1e9, 2),
        "lost": run._report.lost,
        "back": run._report.back,
        "notes": display.notes[:8],
    }


@contextmanager
def two_nodes(cores: int) -> Iterator[str]:
    """Yield the address of a Ray cluster of two nodes on this machine."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": cores, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        cluster.add_node(**options)
        yield cluster.address
    finally:
        cluster.shutdown()


def measure_control(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rate of problems that are solved at once, and the driver's memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.jsonl"
        with path.open("w") as file:
            for number in range(arguments.problems):
                text = f"Problem {number}: " + "what is the answer to this question? " * 20
                file.write(json.dumps({"id": f"p{number}", "problem": text, "answer": 42}) + "\n")
        config = SolverConfig(attempts=arguments.attempts)
        with two_nodes(max(2, arguments.workers)) as address:
            plan = CrewPlan(config, arguments.workers, address, factory=instant_solver)
            result = run_problems(ProblemSet([path]), arguments.problems, plan)
    result["problems_per_second"] = round(arguments.problems / result["seconds"], 1)
    sizes = list(result["driver_mb"].items())
    (early, before), (late, after) = sizes[0], sizes[-1]
    growth = (after - before) * 1e6 / max(1, late - early)
    result["bytes_per_problem"] = round(growth, 1)
    show(
        [
            ("problems a second", result["problems_per_second"], f"at least {RATE_LIMIT}"),
            ("driver, a tenth done, MB", before, ""),
            ("driver, all done, MB", after, ""),
            ("bytes for each problem", result["bytes_per_problem"], f"at most {GROWTH_LIMIT}"),
        ]
    )
    return result


def measure_workers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what one and several CPU workers do with the bundled model."""
    problems = bundled_problems(arguments.problems)
    config = SolverConfig(attempts=arguments.attempts, kernels=arguments.attempts)
    rows = []
    with two_nodes(max(2, arguments.workers)) as address:
        for workers in dict.fromkeys((1, arguments.workers)):
            plan = CrewPlan(config, workers, address)
            rows.append(run_problems(problems, len(problems), plan))
            one, this = rows[0]["problems_per_hour"], rows[-1]["problems_per_hour"]
            rows[-1]["times_one"] = round(this / one, 2)
    cores = f"{os.cpu_count()} cores"
    figures = [(row["workers"], row["problems_per_hour"], row["times_one"]) for row in rows]
    show([(f"{n} workers, problems an hour", rate, f"{x}x; {cores}") for n, rate, x in figures])
    return {"rows": rows, "cores": os.cpu_count()}


def measure_gpus(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what 1, 2, 4, ... workers do, each on a GPU of this machine."""
    import torch

    rows: list[dict[str, Any]] = []
    for count in arguments.gpus:
        if count > torch.cuda.device_count():
            print(f"{count} GPUs: this machine has {torch.cuda.device_count()}", flush=True)
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
        problems = bundled_problems(arguments.problems * count)
        config = SolverConfig(
            model=arguments.shapes,
            attempts=arguments.attempts,
            kernels=2 * arguments.attempts,
            max_tokens=arguments.tokens if arguments.shapes else None,
        )
        factory = shape_solver if arguments.shapes else None
        plan = CrewPlan(config, count, None, 1, arguments.parallel, factory)
        kill = kill_a_worker if arguments.kill else None
        row = run_problems(problems, len(problems), plan, kill)
        rows.append(row)
        row["times_one"] = round(row["problems_per_hour"] / rows[0]["problems_per_hour"], 3)
        row["share_of_ideal"] = round(row["times_one"] * rows[0]["workers"] / count, 4)
        row["start_against_one"] = round(row["all_ready_s"] / max(0.01, rows[0]["all_ready_s"]), 2)
        print(json.dumps(row), flush=True)
    figures = [(row["workers"], row["problems_per_hour"], row["times_one"]) for row in rows]
    show(
        [
            (f"{n} GPUs, problems an hour", rate, f"{x}x, at least {n * SHARES.get(n, 1):.2f}x")
            for n, rate, x in figures
        ]
    )
    return {"rows": rows, "shapes": arguments.shapes}


def measure_devices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the time of a problem on one engine, and with twice the attempts on all devices."""
    named = arguments.devices
    devices = "auto" if named == "auto" else tuple(named.split(","))
    attempts = arguments.attempts
    found = choose_devices(SolverConfig(devices=devices, attempts=MAX_SPREAD)) or ("one",)
    rows = []
    for label, chosen, count in (
        ("one engine", None, attempts),
        (f"{len(found)} engines", devices, attempts),
        (f"{len(found)} engines", devices, attempts * len(found)),
    ):
        config = SolverConfig(devices=chosen, attempts=count, early_stop=0, kernels=2 * count)
        began = time.monotonic()
        with Solver(config) as solver:
            started = time.monotonic() - began
            problem = bundled_problems(1)[0].text
            solver.solve(problem, key="warm")
            results = [solver.solve(problem, key="k") for _ in range(3)]
            result = min(results, key=lambda one: one.seconds)
        streams = [[t for turn in one["turns"] for t in turn["tokens"]] for one in result.attempts]
        rows.append({"engines": label, "attempts": count, "start_s": round(started, 2),
                     "seconds": round(result.seconds, 3), "tokens": result.tokens,
                     "equal": sum(a == b for a, b in zip(streams, rows[0]["streams"], strict=False))
                     if rows else count, "streams": streams})  # fmt: skip
    for row in rows:
        del row["streams"]
    show(
        [
            (f"{row['attempts']} attempts on {row['engines']}, s", row["seconds"],
             f"{row['equal']} of {attempts} attempts with the tokens of one engine")
            for row in rows
        ]
    )  # fmt: skip
    return {"rows": rows, "devices": list(found)}


def bundled_problems(count: int) -> list[Problem]:
    """Return problems that the bundled model knows."""
    chosen = take("held_out", count, 0)
    return [Problem(one.id, one.problem, one.answer, one.family) for one in chosen]


def kill_a_worker() -> None:
    """End one worker of the cluster by SIGKILL."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::SolverWorker"):
                os.kill(int(folder.name), signal.SIGKILL)
                return


def show(rows: list[tuple[str, Any, str]]) -> None:
    """Print figures with their limits."""
    columns = (Column("figure"), Column("value", right=True), Column("limit"))
    cells = [(name, str(value), limit) for name, value, limit in rows]
    print(format_table(columns, cells), flush=True)


def main() -> None:
    """Measure, print a table, and one line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[..., Any], problems: int) -> argparse.ArgumentParser:
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--problems", type=int, default=problems)
        command.add_argument("--attempts", type=int, default=8)
        return command

    add("control", measure_control, 100_000).add_argument("--workers", type=int, default=4)
    add("workers", measure_workers, 24).add_argument("--workers", type=int, default=3)
    gpus = add("gpus", measure_gpus, 40)
    gpus.add_argument("--gpus", type=lambda text: list(map(int, text.split(","))), default=[1])
    gpus.add_argument("--shapes", choices=sorted(SHAPES))
    gpus.add_argument("--tokens", type=int, default=512, help="of an attempt, with --shapes")
    gpus.add_argument("--parallel", type=int, default=1)
    gpus.add_argument("--kill", action="store_true")
    add("devices", measure_devices, 1).add_argument("--devices", default="auto")
    arguments = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = str(Path(__file__).resolve().parent)  # workers import the solvers of this folder
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    print(json.dumps({"benchmark": f"scale {arguments.command}", **arguments.run(arguments)}))


if __name__ == "__main__":
    main()
