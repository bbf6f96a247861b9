"""Measure what a pool's process loses if its 16 kernels send as much as they can.

Each kind of cell floods one way out of a kernel until its time limit, in all kernels at once, while
another thread of the pool's process counts. What the pool's own threads compute meanwhile is what
they can take from it, as they hold the interpreter lock in turns. The counts themselves depend on
what else the machine runs; they are compared with those beside cells that only compute, which
leave the machine as busy and send nothing.
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

from eightfold.sandbox import Kernel, KernelPool, PoolConfig

KERNELS = 16
LIMIT = 1.5  # seconds that a cell may run
GOALS = {"share": 0.05, "memory_mb": 64.0, "overrun_s": 1.5}

_NAMES = (
    "import json, os, socket, struct, threading, time\n"
    "k = get_ipython().kernel; c = k.receiver._connection; big = b'x' * (7 << 20)\n"
    "from eightfold.sandbox.guest.cell_streams import CurrentCell\n"
)
_FOREVER = "while True:\n    try: {}\n    except Exception: pass\n"
BASELINE = "while True: pass"
FLOODS = {  # way out of the kernel: a cell that floods it
    "shell": "k.shell_stream.socket.send_multipart([b'i', big])",
    "shell, small": "k.shell_stream.socket.send_multipart([b'i', b'x'])",
    "shell, many frames": "k.shell_stream.socket.send_multipart([b'i'] + [big] * 20, copy=False)",
    "iopub": "k.iopub_socket.send(big)",
    "iopub, small": "k.iopub_socket.send(b'x')",
    "stdin": "k.stdin_socket.send_multipart([b'i', big])",
    "control": "k.control_stream.socket.send_multipart([b'i', big])",
    "display": "display('x' * 40_000)",
    "print": "print('\\x01' * 1000)",
    "descriptor 1": "os.write(1, big)",
    "request channel": "c.sendall(big)",
    "request channel, bytes": "c.sendall(b'\\0'); time.sleep(0.001)",
    "request channel, replies": (
        "m = json.dumps({'id': 0}).encode(); c.sendall(struct.pack('<I', len(m)) + m)"
    ),
    "request channel, descriptors": "socket.send_fds(c, [b'x'], [0] * 200)",
    "every descriptor": "[os.write(fd, big) for fd in range(3, 256)]",
    "shared page": (
        "m = CurrentCell.page._page; m[8:] = b'\\r' * (len(m) - 9) + b'x'; m[:8] = b'\\xff' * 8"
    ),
    "death": "os._exit(1)",
    "endless source": "[0 for _ in iter(int, 1)]",
}


class _Counter(threading.Thread):
    """Another thread of the pool's process, which counts as fast as it can."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.seconds = 0.0  # of CPU time
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            for _ in range(1000):
                pass
            self.count += 1
        self.seconds = time.thread_time()


def _peak_megabytes(*, reset: bool) -> float:
    """Return the largest resident memory of this process since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("Linux does not say how much memory this process has used.")


def _flood(kernels: list[Kernel], code: str) -> dict[str, float]:
    """Run a cell in all kernels at once, beside a thread that counts.

    Returns:
        ``rate``: turns of the counting thread a second; ``share``: seconds that the other threads
        of this process computed, for each second; ``memory_mb``: memory that this process used
        more; ``overrun_s``: the longest time by which an execution exceeded the limit.
    """
    seconds: list[float] = []

    def execute(kernel: Kernel) -> None:
        began = time.perf_counter()
        kernel.execute(code, timeout=LIMIT)
        seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=execute, args=(kernel,)) for kernel in kernels]
    counter = _Counter()
    memory = _peak_megabytes(reset=True)
    began, cpu = time.perf_counter(), time.process_time()
    counter.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(max(0.0, LIMIT - (time.perf_counter() - began)))
    counter.ended = True
    counter.join()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "rate": counter.count / elapsed,
        "share": (cpu - counter.seconds) / elapsed,
        "memory_mb": _peak_megabytes(reset=False) - memory,
        "overrun_s": max(seconds) - LIMIT,
    }


def measure_hostile(turns: int) -> dict[str, Any]:
    """Measure each kind of flood `turns` times, each beside a turn of cells that only compute.

    Returns:
        For each kind, the largest memory and overrun and the median share; under ``goals_missed``
        the kinds that miss one.
    """
    found: dict[str, Any] = {}
    with KernelPool(PoolConfig(size=KERNELS, spares=2, timeout=60)) as pool:
        pool.wait_ready(KERNELS, timeout=120)
        for name, statement in FLOODS.items():
            runs, baselines = [], []
            for _ in range(turns):
                baselines.append(_run(pool, BASELINE))
                runs.append(_run(pool, _NAMES + _FOREVER.format(statement)))
            rates = [run["rate"] / base["rate"] for run, base in zip(runs, baselines, strict=True)]
            found[name] = {
                "share": round(statistics.median(run["share"] for run in runs), 4),
                "rate": round(statistics.median(rates), 2),
                "memory_mb": round(max(run["memory_mb"] for run in runs), 1),
                "overrun_s": round(max(run["overrun_s"] for run in runs), 2),
                "computing_overrun_s": round(max(run["overrun_s"] for run in baselines), 2),
            }
            print(f"{name:<30}{found[name]}", flush=True)
    missed = [
        f"{name}: {key}"
        for name, figures in found.items()
        for key, goal in GOALS.items()
        if figures[key] > goal
    ]
    return {**found, "goals_missed": missed}


def _run(pool: KernelPool, code: str) -> dict[str, float]:
    """Run a cell in fresh kernels; return the figures of `_flood`."""
    kernels = [pool.lease(timeout=60) for _ in range(KERNELS)]
    try:
        return _flood(kernels, code)
    finally:
        for kernel in kernels:
            kernel.release()
