"""Figures of the sandbox: start, cells, recovery, memory; ``--soak`` runs many mixed cells.

Prints a short table and one last line of JSON. Times in milliseconds, memory in MB.
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


def cells(count: int) -> dict[str, Any]:
    """Round trip of a trivial cell, with isolation and, turn by turn, without."""
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
    open_ = quantiles(times[False])
    walled = quantiles(times[True])
    return {**walled, "isolation_p50": round(walled["p50"] - open_["p50"], 2)}


def deaths(turns: int) -> dict[str, Any]:
    """How soon a death is noticed, the next cell of the lease answered, and a flood stopped."""
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


def held(*processes: psutil.Process) -> dict[str, int]:
    """What the pool's process and its template hold together."""
    return {
        "fds": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "rss_mb": sum(process.memory_info().rss for process in processes) // 1_000_000,
    }


def recovery(turns: int) -> dict[str, Any]:
    """Release to ready, and to the first answer, without a spare; what is left after many."""
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
                now = held(me, psutil.Process(pool.stats()["template_pid"]))
                before = before or now
    return {
        "ready": quantiles(ready),
        "first_cell": quantiles(answered),
        "early": before,
        "late": now,
    }


def soak(total: int, threads: int) -> dict[str, Any]:
    """`total` cells, 12 % hostile, on 16 kernels: what was contaminated, lost or stuck."""
    counts = {"cells": 0, "hostile": 0, "contaminated": 0, "lost": 0, "stuck": 0, "late": 0}
    leases: list[float] = []
    overrun: list[float] = []
    lock = threading.Lock()
    limit = 0.3

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
                for code, right in (*dice.sample(PLAIN, 4), ("leftover = 1", "(no output)")):
                    result = kernel.execute(code, timeout=30)
                    with lock:
                        counts["cells"] += 1
                        counts["contaminated"] += result.text != right
                if dice.random() < 0.78:
                    result = kernel.execute(dice.choice(HOSTILE), timeout=limit)
                    again = kernel.execute("6 * 7", timeout=30)
                    overrun.append(max(0.0, result.seconds - limit))
                    with lock:
                        counts["cells"] += 2
                        counts["hostile"] += 1
                        counts["late"] += result.seconds > limit + 1.5
                        counts["stuck"] += again.status == "timeout"
            with lock:
                if counts["cells"] >= total:
                    return

    config = PoolConfig(size=16, spares=4, strict=True)
    with KernelPool(config) as pool:
        pool.wait_ready(16, timeout=120)
        watched = (psutil.Process(), psutil.Process(pool.stats()["template_pid"]))
        early = held(*watched)
        began = time.perf_counter()
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = round(time.perf_counter() - began)
        pool.wait_ready(16, timeout=120)
        late = held(*watched)
    times = {"lease": quantiles(leases), "overrun": quantiles(overrun)}
    counts |= {"leases": len(leases), "seconds": seconds}
    return {**counts, **times, "held_early": early, "held_late": late}


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
            "start": min((start(options.size) for _ in range(5)), key=lambda s: s["all_ready_s"]),
            "cell": cells(options.cells),
            "recovery": recovery(options.turns),
            "death": deaths(max(1, options.turns // 4)),
        }
    figures["load"] = round(psutil.getloadavg()[0], 2)
    for name, value in figures.items():
        print(f"{name:<10}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
