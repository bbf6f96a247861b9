"""Figures of the sandbox: start, cells, recovery, memory; ``--soak`` runs many mixed cells.

Prints a short table and one last line of JSON. Times in milliseconds, memory in MB.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from eightfold.sandbox import KernelPool, PoolConfig

HOSTILE = (
    "while True: pass",
    "sum(range(10**12))",
    "import os; os._exit(1)",
    "while True:\n    try:\n        while True: pass\n    except: pass",
    "for i in range(10**9): print(i)",
    "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "import builtins; builtins.sum = lambda *a: 42; math.pi = 3; sympy.isprime = lambda n: True",
    "x = bytearray(6 << 30)",
)
PLAIN = (
    ("sum(range(101))", "5050"),
    ("sympy.isprime(9), round(math.pi, 5)", "(False, 3.14159)"),
    ("print(3**50)", "717897987691852588770249"),
    ("mpmath.mp.dps", "64"),
    ("'leftover' in globals()", "False"),
    ("sympy.factorint(360360)", "{2: 3, 3: 2, 5: 1, 7: 1, 11: 1, 13: 1}"),
)


def quantiles(values: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds of `values` in seconds."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered) * 1e3, 2), "p99": round(p99 * 1e3, 2)}


def pss(pid: int) -> float:
    """Proportional set size of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def start(size: int) -> dict[str, Any]:
    """From nothing to `size` ready kernels, and their memory once used."""
    began = time.perf_counter()
    with KernelPool(PoolConfig(size=size, spares=0, timeout=30)) as pool:
        while pool.stats()["start"] is None:
            time.sleep(0.002)
        warm = time.perf_counter()
        pool.wait_ready(size, timeout=120)
        ready = time.perf_counter()
        kernels = [pool.lease(timeout=60) for _ in range(size)]
        for kernel in kernels:
            kernel.execute("sympy.integrate(sympy.Symbol('t') ** 2, sympy.Symbol('t'))")
        pids = [*pool.stats()["pids"], pool.stats()["template_pid"]]
        return {
            "template_s": round(warm - began, 2),
            "all_ready_s": round(ready - warm, 2),
            "pss_mb": round(sum(map(pss, pids))),
        }


def cells(count: int) -> dict[str, float]:
    """Round trip of a trivial cell."""
    with KernelPool(PoolConfig(size=1, spares=0)) as pool, pool.lease(timeout=60) as kernel:
        kernel.execute("1")
        return quantiles([kernel.execute("1 + 1").seconds for _ in range(count)])


def recovery(turns: int) -> dict[str, Any]:
    """Release to ready, and to the first answer, without a spare; what is left after many."""
    me = psutil.Process()
    ready, answered = [], []
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        pool.wait_ready(1, timeout=60)
        before = {}
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
                now = {"fds": me.num_fds(), "threads": me.num_threads()}
                now["rss_mb"] = me.memory_info().rss // 1_000_000
                before = before or now
    return {
        "ready": quantiles(ready),
        "first_cell": quantiles(answered),
        "early": before,
        "late": now,
    }


def soak(total: int, threads: int) -> dict[str, Any]:
    """`total` cells, 12 % hostile, on 16 kernels: what was contaminated, lost or stuck."""
    counts = {"cells": 0, "hostile": 0, "contaminated": 0, "lost": 0, "stuck": 0}
    leases: list[float] = []
    overrun: list[float] = []
    lock = threading.Lock()
    limit, grace = 0.3, 0.5

    def work(seed: int) -> None:
        dice = random.Random(seed)
        while True:
            began = time.perf_counter()
            try:
                kernel = pool.lease(timeout=60)
            except TimeoutError:
                with lock:
                    counts["lost"] += 1
                return
            leases.append(time.perf_counter() - began)
            with kernel:
                for code, right in dice.sample(PLAIN, 4):
                    result = kernel.execute(code, timeout=10)
                    with lock:
                        counts["cells"] += 1
                        counts["contaminated"] += result.text != right
                kernel.execute("leftover = 1")
                if dice.random() < 0.6:
                    result = kernel.execute(dice.choice(HOSTILE), timeout=limit)
                    overrun.append(max(0.0, result.seconds - limit))
                    with lock:
                        counts["cells"] += 1
                        counts["hostile"] += 1
                        counts["stuck"] += result.seconds > limit + grace + 5
            with lock:
                if counts["cells"] >= total:
                    return

    with KernelPool(PoolConfig(size=16, spares=4, grace=grace)) as pool:
        pool.wait_ready(16, timeout=120)
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return {**counts, "lease": quantiles(leases), "overrun": quantiles(overrun)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--soak", type=int, default=0, metavar="CELLS", help="e.g. 10000")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    if options.soak:
        figures: dict[str, Any] = {"soak": soak(options.soak, options.threads)}
    else:
        figures = {
            "start": start(options.size),
            "cell": cells(options.cells),
            "recovery": recovery(options.turns),
        }
    figures["load"] = round(psutil.getloadavg()[0], 2)
    for name, value in figures.items():
        print(f"{name:<10}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
