"""What is left when leases, pools and processes end, whenever and however they do. About 30 s."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from eightfold.sandbox import Kernel, KernelPool, PoolConfig, SandboxError


def test_a_dead_template_is_replaced() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        pool.wait_ready(1, timeout=60)
        os.kill(pool.stats()["template_pid"], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with pool.lease(timeout=60) as kernel:
                result = kernel.execute("6 * 7", timeout=10)
            if result.text == "42":
                break
        assert result.text == "42"


def test_release_while_a_cell_runs_and_use_afterwards() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        kernel = pool.lease(timeout=60)
        threading.Timer(0.2, kernel.release).start()
        assert kernel.execute("while True: pass", timeout=30).killed
        time.sleep(0.1)
        with pytest.raises(SandboxError, match="released"):
            kernel.execute("1")
        kernel.release()
    with pytest.raises(SandboxError, match="closed"):
        pool.lease()


SCRIPT = """
import json, sys, time
from eightfold.sandbox import KernelPool, PoolConfig
pool = KernelPool(PoolConfig(size=2, spares=0))
pool.wait_ready(2, timeout=60)
kernel = pool.lease()
pid = kernel.execute("import subprocess; subprocess.Popen(['sleep', '999']).pid").text
print(json.dumps({**pool.stats(), "extra": int(pid)}), flush=True)
if sys.argv[1] == "raise":
    raise ValueError
if sys.argv[1] == "end":
    sys.exit(0)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["end", "raise", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_when_the_process_goes(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    stats = json.loads(process.stdout.readline())
    pids = [stats["template_pid"], stats["extra"], *stats["pids"]]
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    if how.startswith("SIG"):
        assert len(left) == 4
        process.send_signal(getattr(signal, how))
    process.wait(30)
    process.stdout.close()
    assert not psutil.wait_procs(left, timeout=10)[1]
    deadline = time.monotonic() + 10
    while Path(stats["folder"]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(stats["folder"]).exists()


def held(processes: list[psutil.Process]) -> list[int]:
    """Descriptors, threads and children of the processes, and their memory in MB."""
    return [
        sum(process.num_fds() for process in processes),
        sum(process.num_threads() for process in processes),
        sum(len(process.children()) for process in processes),
        sum(process.memory_info().rss for process in processes) // 1_000_000,
    ]


def test_leases_leave_descriptors_threads_and_memory_flat() -> None:
    with KernelPool(PoolConfig(size=2, spares=0)) as pool:
        counts = []
        for turn in range(60):
            with pool.lease(timeout=60) as kernel:
                if turn % 10 == 5:
                    assert kernel.execute("import os; os._exit(1)", timeout=20).status == "died"
                assert kernel.execute("1 + 1", timeout=20).text.endswith("2")
            if turn in (19, 59):
                pool.wait_ready(2, timeout=60)
                template = psutil.Process(pool.stats()["template_pid"])
                wait_until(lambda template=template: len(template.children()) == 2)
                counts.append(held([psutil.Process(), template]))
    early, late = counts
    assert late[:3] == early[:3]
    assert late[3] <= early[3] + 6


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def test_the_scratch_folder_vanishes_with_the_lease() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("open('f', 'w').write('abc')").status == "ok"
            assert kernel.connection_file is not None
            folder = kernel.connection_file.parent.parent
            assert (folder / "scratch" / "f").read_text() == "abc"
            kernel.execute("import os; os.mkdir('d'); open('d/f', 'w'); os.chmod('d', 0)")
        wait_until(lambda: not folder.exists())


def test_release_at_any_moment_ends_the_cell_at_once() -> None:
    with KernelPool(PoolConfig(size=2, spares=1)) as pool:
        for turn in range(12):
            kernel = pool.lease(timeout=60)
            outcome: list[object] = []

            def run(kernel: Kernel = kernel, outcome: list[object] = outcome) -> None:
                try:
                    outcome.append(kernel.execute("while True: pass", timeout=60).cancelled)
                except SandboxError:  # the release came first
                    outcome.append(True)

            thread = threading.Thread(target=run)
            thread.start()
            time.sleep(turn * 0.0005)
            kernel.release()
            thread.join(30)  # the cell's own limit is twice that
            assert outcome == [True]


def test_a_kill_is_heard_while_an_interrupt_waits() -> None:
    config = PoolConfig(size=1, spares=0, grace=60)
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        threading.Timer(0.5, kernel.kill).start()
        result = kernel.execute("sum(range(10**12))", timeout=0.1)  # then waits 60 s for it
        assert result.killed
        assert result.seconds < 30


def test_closing_a_pool_in_use_ends_every_lease() -> None:
    for pause in (0.0, 0.02, 0.3):
        pool = KernelPool(PoolConfig(size=3, spares=0))
        pool.wait_ready(1, timeout=60)
        wrong: list[BaseException] = []

        def work(pool: KernelPool = pool, wrong: list[BaseException] = wrong) -> None:
            try:
                while True:
                    with pool.lease(timeout=60) as kernel:
                        kernel.execute("import time; time.sleep(0.01)", timeout=20)
                        kernel.execute("import os; os._exit(0)", timeout=20)
                        kernel.execute("while True: pass", timeout=0.05)
            except SandboxError:
                pass
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(pause)
        folder = Path(pool.stats()["folder"])
        before = psutil.Process(pool.stats()["template_pid"])
        pool.close()
        for thread in threads:
            thread.join(30)
        assert not wrong
        assert not any(thread.is_alive() for thread in threads)
        assert not before.is_running()
        assert not folder.exists()
        assert not pool._taken


def test_a_pool_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with KernelPool(PoolConfig(size=1)) as pool:
        with pytest.raises(SandboxError, match=r"template process: .*No such file"):
            pool.lease(timeout=60)
        with pytest.raises(SandboxError, match="No such file"):
            pool.wait_ready(1, timeout=60)
