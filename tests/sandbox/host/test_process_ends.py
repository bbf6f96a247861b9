"""Leases, pools and processes that end at any time and in any way leave nothing. About 45 s."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.cell_waits import RUNNING, wait_until, when_running
from helpers.missing_calls import REFUSE_CALLS

from eightfold.sandbox import Kernel, KernelPool, PoolConfig, SandboxError


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    # The grace period is long for a busy machine; no cell here needs all of it.
    with KernelPool(PoolConfig(size=1, spares=1, timeout=60, grace=60)) as pool:
        yield pool


def test_processes_that_a_cell_leaves_running_end_with_the_lease(pool: KernelPool) -> None:
    code = (
        "import subprocess, threading\n"
        "p = subprocess.Popen(['sleep', '1234'], start_new_session=True)\n"
        "q = subprocess.Popen(['sh', '-c', 'sleep 4321 & echo $!; wait'],\n"
        "                     stdout=-1, start_new_session=True)\n"
        "threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()\n"
        "print(p.pid, q.pid, int(q.stdout.readline()))"
    )
    with pool.lease(timeout=60) as kernel:
        kernel.execute(code)
        assert kernel.pid is not None
        left = [psutil.Process(kernel.pid)]
        left += left[0].children(recursive=True)
        assert len(left) == 4  # the kernel, two programs and one's child
    assert not psutil.wait_procs(left, timeout=60)[1]


def test_an_orphaned_process_ends_with_the_lease_at_the_latest(pool: KernelPool) -> None:
    code = (
        "import os\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    daemon = os.fork()\n"
        "    if daemon == 0: os.execvp('sleep', ['sleep', '4321'])\n"
        "    os.write(w, str(daemon).encode())\n"
        "    os._exit(0)\n"
        "print(int(os.read(r, 20)))"
    )
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(code).status == "ok"
        template = psutil.Process(pool.stats()["template_pid"])
        # Without namespaces, the template may have killed it already.
        left = [
            each
            for each in template.children(recursive=True)
            if "4321" in each.as_dict(["cmdline"], ad_value=())["cmdline"]
        ]
        assert kernel.execute("6 * 7").text == "42"
    assert not psutil.wait_procs(left, timeout=60)[1]
    running = psutil.process_iter(["cmdline"], ad_value=())
    found = [each for each in running if "4321" in each.info["cmdline"]]
    assert not psutil.wait_procs(found, timeout=60)[1]


def test_an_interrupt_from_another_thread_keeps_the_variables(
    pool: KernelPool,
) -> None:
    with pool.lease(timeout=60) as kernel:
        kernel.execute("x = 5")
        thread = when_running(kernel, kernel.interrupt)
        result = kernel.execute("print('in')\n" + RUNNING + "while True: pass")
        thread.join()
        assert (result.status, result.cancelled, result.killed) == ("timeout", True, False)
        assert result.text == "in\nInterrupted: the cell was stopped. Variables are kept."
        assert kernel.execute("x").text == "5"
        kernel.interrupt()  # no cell runs, and the next one must not be interrupted
        assert kernel.execute("x + 1").text == "6"


def test_a_kill_from_another_thread_ends_even_a_stuck_cell(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        kernel.execute("x = 5")
        thread = when_running(kernel, kernel.kill)
        result = kernel.execute(RUNNING + "sum(range(10**12))")
        thread.join()
        assert (result.status, result.cancelled, result.killed) == ("timeout", True, True)
        assert kernel.execute("x").error == "NameError"


def test_a_dead_template_is_replaced() -> None:
    with KernelPool(PoolConfig(size=1, spares=0, timeout=60)) as pool:
        pool.wait_ready(1, timeout=60)
        first = pool.stats()["template_pid"]
        os.kill(first, signal.SIGKILL)

        def answers() -> bool:
            with pool.lease(timeout=60) as kernel:
                return kernel.execute("6 * 7").text == "42"

        wait_until(answers)
        wait_until(lambda: pool.stats()["template_pid"] not in (None, first))


def test_a_release_ends_the_running_cell_and_forbids_others() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        kernel = pool.lease(timeout=60)
        thread = when_running(kernel, kernel.release)
        assert kernel.execute(RUNNING + "while True: pass", timeout=60).killed
        thread.join()
        with pytest.raises(SandboxError, match="released"):
            kernel.execute("1")
        kernel.release()
    with pytest.raises(SandboxError, match="closed"):
        pool.lease()


SCRIPT = (
    REFUSE_CALLS
    + """
import json, sys, time
if sys.argv[1].endswith("no namespaces"):
    refuse_calls("namespaces")
from eightfold.sandbox import KernelPool, PoolConfig
pool = KernelPool(PoolConfig(size=2, spares=0))
pool.wait_ready(2, timeout=60)
kernel = pool.lease()
code = "for i in (0, 1): subprocess.Popen(['sleep', '999'], start_new_session=bool(i))"
assert kernel.execute("import subprocess\\n" + code).status == "ok"
print(json.dumps(pool.stats()), flush=True)
if sys.argv[1] == "raise":
    raise ValueError
if sys.argv[1] == "end":
    sys.exit(0)
time.sleep(60)
"""
)


ENDS = (
    "end",
    "raise",
    "SIGTERM",
    "SIGKILL",
    "SIGKILL of the template",
    "SIGKILL, and the template",
    "SIGKILL of the template, no namespaces",
    "SIGKILL, and the template, no namespaces",
)


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left_when_the_program_ends(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    stats = json.loads(process.stdout.readline())
    left = (
        [psutil.Process(stats["template_pid"])] if psutil.pid_exists(stats["template_pid"]) else []
    )
    with suppress(psutil.NoSuchProcess):
        left += left[0].children(recursive=True) if left else []
    if how.startswith("SIG"):
        assert len(left) >= 5  # the template, two kernels and two programs
        # The pool's program, or its template, or both.
        if not how.startswith("SIGKILL of the template"):
            process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGKILL)
        if "template" in how:
            left[0].kill()
    if how.startswith("SIGKILL of the template"):
        assert not psutil.wait_procs(left, timeout=60)[1]
        process.kill()
    process.wait(60)
    process.stdout.close()
    assert not psutil.wait_procs(left, timeout=60)[1]
    if "template" not in how:  # else the next pool removes it
        wait_until(lambda: not Path(stats["folder"]).exists())


def resources(processes: list[psutil.Process]) -> list[int]:
    """Return the numbers of descriptors, threads and children, each the least of 20 readings.

    Meanwhile the pool and its template open files in /proc and remove folders.
    """
    readings = []
    for _ in range(20):
        fds = sum(process.num_fds() for process in processes)
        threads = sum(process.num_threads() for process in processes)
        readings.append((fds, threads, sum(len(process.children()) for process in processes)))
        time.sleep(0.01)
    return list(map(min, zip(*readings, strict=True)))


def resident_megabytes(processes: list[psutil.Process]) -> int:
    """Return the resident memory in megabytes."""
    return sum(process.memory_info().rss for process in processes) // 1_000_000


def test_leases_leak_no_descriptors_threads_or_memory() -> None:
    with KernelPool(PoolConfig(size=2, spares=0, timeout=60)) as pool:
        pool.wait_ready(2, timeout=60)
        processes = [psutil.Process(), psutil.Process(pool.stats()["template_pid"])]
        early: list[int] = []
        for turn in range(36):
            with pool.lease(timeout=60) as kernel:
                if turn % 10 == 5:
                    assert kernel.execute("import os; os._exit(1)").status == "died"
                assert kernel.execute("1 + 1").text.endswith("2")
            if turn == 11:
                pool.wait_ready(2, timeout=60)
                wait_until(lambda: len(processes[1].children()) == 2)
                early, before = resources(processes), resident_megabytes(processes)
        pool.wait_ready(2, timeout=60)
        wait_until(lambda: resources(processes) == early)
        assert resident_megabytes(processes) <= before + 6


def test_the_scratch_folder_is_removed_with_the_lease() -> None:
    with KernelPool(PoolConfig(size=1, spares=0)) as pool:
        with pool.lease(timeout=60) as kernel:
            assert kernel.execute("open('f', 'w').write('abc')").status == "ok"
            assert kernel.connection_file is not None
            folder = kernel.connection_file.parent.parent
            assert Path(f"/proc/{kernel.pid}/cwd/f").read_text() == "abc"
            kernel.execute("import os; os.mkdir('d'); open('d/f', 'w'); os.chmod('d', 0)")
        wait_until(lambda: not folder.exists())


def test_a_release_at_any_moment_ends_the_cell_at_once() -> None:
    with KernelPool(PoolConfig(size=2, spares=1)) as pool:
        for turn in range(6):
            kernel = pool.lease(timeout=60)
            outcome: list[object] = []

            def run(kernel: Kernel = kernel, outcome: list[object] = outcome) -> None:
                try:
                    outcome.append(kernel.execute("while True: pass", timeout=60).cancelled)
                except SandboxError:  # the release came before the cell
                    outcome.append(True)

            thread = threading.Thread(target=run)
            thread.start()
            time.sleep(turn * 0.001)
            kernel.release()
            thread.join(30)  # seconds; the cell's own limit is twice as long
            assert outcome == [True]


def test_a_kill_is_obeyed_during_the_grace_period() -> None:
    config = PoolConfig(size=1, spares=0, grace=3600)
    with KernelPool(config) as pool, pool.lease(timeout=60) as kernel:
        thread = when_running(kernel, kernel.kill)
        interrupted = "import signal\nsignal.signal(signal.SIGINT, lambda *_: {})\nwhile True: pass"
        # Otherwise this would last longer than a test may.
        result = kernel.execute(interrupted.format(RUNNING.strip()), timeout=0.5)
        thread.join()
        assert (result.killed, result.cancelled) == (True, False)


def test_closing_a_pool_ends_every_lease_in_use() -> None:
    for pause in (0.0, 0.2):
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
        assert not pool.stats()["pids"]
