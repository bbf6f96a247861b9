"""Figures of the sandbox: start, cells, recovery and memory; `--soak` runs many mixed cells.

    python benchmarks/sandbox.py [--soak 10000 | --hostile 3]

`--hostile` lets 16 kernels send all they can and measures what this costs the pool's process.

Prints a short table and a last line of JSON. Times are in milliseconds, except in keys that end in
"_s" or "seconds". Memory is in MB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from support.hostile_kernels import measure_hostile

from eightfold.sandbox import KernelPool, PoolConfig

HOSTILE = (  # cells that must not affect any other kernel
    "while True: pass",
    "sum(range(10**12))",
    "import os; os._exit(1)",
    "while True:\n    try:\n        while True: pass\n    except: pass",
    "for i in range(10**9): print(i)",
    "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "import builtins; builtins.sum = lambda *a: 42; math.pi = 3; sympy.isprime = lambda n: True",
    "x = bytearray(6 << 30)",
    "9**9**9",
    "import os; os.closerange(0, 256)",
    "import sys; sys.stdout = None; del __builtins__.len",
    "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "import subprocess; [subprocess.Popen(['sleep', '99'], start_new_session=True) for _ in '123']",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "x = []\nwhile True: x.append(bytes(50_000_000))",
    "import ctypes; ctypes.string_at(0)",
    "for i in range(40):\n    with open(f'f{i}', 'wb') as f: f.write(bytes(16 << 20))",
)
HARMLESS = (  # cells and their output
    ("sum(range(101))", "5050"),
    ("sympy.isprime(9), round(math.pi, 5)", "(False, 3.14159)"),
    ("print(3**50)", "717897987691852588770249"),
    ("mpmath.mp.dps", "64"),
    ("'leftover' in globals()", "False"),
    ("sympy.factorint(360360)", "{2: 3, 3: 2, 5: 1, 7: 1, 11: 1, 13: 1}"),
)
HOSTILE_SECONDS = 0.3  # time limit of a hostile cell


def quantiles(values: list[float]) -> dict[str, float]:
    """Return p50 and p99 of times in seconds, in milliseconds."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered) * 1e3, 2), "p99": round(p99 * 1e3, 2)}


def pss(pid: int) -> float:
    """Return the proportional set size of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def measure_start(size: int) -> dict[str, Any]:
    """Measure the time from nothing to `size` ready kernels, and their memory once used."""
    began = time.perf_counter()
    with KernelPool(PoolConfig(size=size, spares=0, timeout=30)) as pool:
        while pool.stats()["start"] is None:
            time.sleep(0.002)
        template_ready = time.perf_counter()
        pool.wait_ready(size, timeout=120)
        all_ready = time.perf_counter()
        kernels = [pool.lease(timeout=60) for _ in range(size)]
        for kernel in kernels:
            kernel.execute("sympy.integrate(sympy.Symbol('t') ** 2, sympy.Symbol('t'))")
        template = psutil.Process(pool.stats()["template_pid"])
        # With namespaces each kernel has a first process beside it.
        pids = [template.pid, *(child.pid for child in template.children(recursive=True))]
        return {
            "template_s": round(template_ready - began, 2),
            "all_ready_s": round(all_ready - template_ready, 2),
            "pss_mb": round(sum(map(pss, pids))),
        }


def measure_cells(count: int) -> dict[str, Any]:
    """Measure the round trip of a trivial cell, alternately with and without isolation."""
    times: dict[bool, list[float]] = {True: [], False: []}
    with contextlib.ExitStack() as stack:
        kernels = {}
        for isolate in times:
            config = PoolConfig(size=1, spares=0, isolate=isolate)
            kernels[isolate] = stack.enter_context(
                stack.enter_context(KernelPool(config)).lease(timeout=60)
            )
            kernels[isolate].execute("1")
        for _ in range(count):
            for isolate, kernel in kernels.items():
                times[isolate].append(kernel.execute("1 + 1").seconds)
    isolated, open_ = quantiles(times[True]), quantiles(times[False])
    return {**isolated, "isolation_p50": round(isolated["p50"] - open_["p50"], 2)}


def measure_deaths(turns: int) -> dict[str, Any]:
    """Measure how soon a death is noticed and the lease's next cell answered, and a flood ended."""
    noticed, answered, floods = [], [], []
    with KernelPool(PoolConfig(size=1, spares=0, timeout=30)) as pool:
        kernel = pool.lease(timeout=60)
        for _ in range(turns):
            kernel.execute("1")
            pid = kernel.pid
            assert pid is not None
            killed: list[float] = []

            def kill(pid: int = pid, killed: list[float] = killed) -> None:
                killed.append(time.perf_counter())
                os.kill(pid, signal.SIGKILL)

            timer = threading.Timer(0.05, kill)
            timer.start()
            kernel.execute("import time; time.sleep(9)")
            noticed.append(time.perf_counter() - killed[0])
            kernel.execute("1 + 1")
            answered.append(time.perf_counter() - killed[0])
        for _ in range(max(1, turns // 10)):
            floods.append(kernel.execute("while True: print('x' * 1000)").seconds)
        kernel.release()
    return {
        "noticed": quantiles(noticed),
        "killed_to_first_cell": quantiles(answered),
        "print_flood": quantiles(floods),
    }


def resources(*processes: psutil.Process) -> dict[str, int]:
    """Return what the processes hold together."""
    return {
        "fds": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "rss_mb": sum(process.memory_info().rss for process in processes) // 1_000_000,
    }


def measure_recovery(turns: int) -> dict[str, Any]:
    """Measure the time from a release to the next lease and its first answer, without a spare.

    "early" and "late" are what this process and the template hold, which shows leaks.
    """
    me = psutil.Process()
    ready, answered = [], []
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        pool.wait_ready(1, timeout=60)
        before: dict[str, int] = {}
        for turn in range(turns):
            kernel = pool.lease(timeout=60)
            kernel.execute("1")
            began = time.perf_counter()
            kernel.release()
            with pool.lease(timeout=60) as kernel:
                ready.append(time.perf_counter() - began)
                kernel.execute("1 + 1")
                answered.append(time.perf_counter() - began)
            pool.wait_ready(1, timeout=60)
            if turn in (turns // 5, turns - 1):
                now = resources(me, psutil.Process(pool.stats()["template_pid"]))
                before = before or now
    return {
        "ready": quantiles(ready),
        "first_cell": quantiles(answered),
        "early": before,
        "late": now,
    }


class Soak:
    """Mixed cells from several threads until a number of them has run.

    Args:
        pool: the kernels.
        total: number of cells.
    """

    def __init__(self, pool: KernelPool, total: int) -> None:
        self._pool, self._total = pool, total
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(
            ("cells", "hostile", "contaminated", "lost", "stuck", "late"), 0
        )
        self.lease_seconds: list[float] = []
        self.overrun_seconds: list[float] = []

    def work(self, seed: int) -> None:
        """Lease kernels and run cells on them; the body of a thread."""
        dice = random.Random(seed)
        while True:
            began = time.perf_counter()
            try:
                kernel = self._pool.lease(timeout=60)
            except TimeoutError:
                self._count(lost=1)
                return
            self.lease_seconds.append(time.perf_counter() - began)
            with kernel:
                for code, output in (*dice.sample(HARMLESS, 4), ("leftover = 1", "(no output)")):
                    result = kernel.execute(code, timeout=30)
                    self._count(cells=1, contaminated=result.text != output)
                if dice.random() < 0.78:
                    result = kernel.execute(dice.choice(HOSTILE), timeout=HOSTILE_SECONDS)
                    again = kernel.execute("6 * 7", timeout=30)
                    overrun = result.seconds - HOSTILE_SECONDS
                    self.overrun_seconds.append(max(0.0, overrun))
                    self._count(
                        cells=2, hostile=1, late=overrun > 1.5, stuck=again.status == "timeout"
                    )
            with self._lock:
                if self.counts["cells"] >= self._total:
                    return

    def _count(self, **changes: int) -> None:
        with self._lock:
            for name, change in changes.items():
                self.counts[name] += change


def measure_soak(total: int, threads: int) -> dict[str, Any]:
    """Run cells, 12 % of them hostile, on 16 kernels; count the contaminated, lost and stuck."""
    with KernelPool(PoolConfig(size=16, spares=4, strict=True)) as pool:
        pool.wait_ready(16, timeout=120)
        watched = (psutil.Process(), psutil.Process(pool.stats()["template_pid"]))
        early = resources(*watched)
        soak = Soak(pool, total)
        began = time.perf_counter()
        workers = [threading.Thread(target=soak.work, args=(seed,)) for seed in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = round(time.perf_counter() - began)
        pool.wait_ready(16, timeout=120)
        late = resources(*watched)
    return {
        **soak.counts,
        "leases": len(soak.lease_seconds),
        "seconds": seconds,
        "lease": quantiles(soak.lease_seconds),
        "overrun": quantiles(soak.overrun_seconds),
        "held_early": early,
        "held_late": late,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=16, help="kernels of the start (%(default)s)")
    parser.add_argument("--cells", type=int, default=1000, help="trivial cells (%(default)s)")
    parser.add_argument(
        "--turns", type=int, default=200, help="releases; a quarter as many deaths (%(default)s)"
    )
    parser.add_argument(
        "--soak", type=int, default=0, metavar="CELLS", help="only run this many mixed cells"
    )
    parser.add_argument(
        "--hostile", type=int, default=0, metavar="TURNS", help="only measure floods, in 16 kernels"
    )
    parser.add_argument(
        "--threads", type=int, default=8, help="threads that run mixed cells (%(default)s)"
    )
    options = parser.parse_args()
    if options.soak:
        figures: dict[str, Any] = {"soak": measure_soak(options.soak, options.threads)}
    elif options.hostile:
        figures = {"hostile": measure_hostile(options.hostile)}
    else:
        starts = (measure_start(options.size) for _ in range(5))
        figures = {
            "start": min(starts, key=lambda start: start["all_ready_s"]),
            "cell": measure_cells(options.cells),
            "recovery": measure_recovery(options.turns),
            "death": measure_deaths(max(1, options.turns // 4)),
        }
    figures["load"] = round(psutil.getloadavg()[0], 2)
    for name, value in figures.items():
        print(f"{name:<10}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
