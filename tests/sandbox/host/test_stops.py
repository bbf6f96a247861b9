"""Requests to stop, and deaths, in the phases before a cell runs. About 5 s."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.cell_waits import RUNNING, wait_until

from eightfold.sandbox import Kernel, KernelPool, PoolConfig

ENDLESS = RUNNING + "while True: pass"


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=1, spares=1, timeout=60, grace=2, replay=True)) as pool:
        yield pool


@pytest.mark.parametrize("request_stop", [Kernel.kill, Kernel.interrupt])
def test_a_stop_while_earlier_cells_run_again_stops_the_cell(
    pool: KernelPool, request_stop: Callable[[Kernel], None]
) -> None:
    def replaying() -> bool:
        return Path(f"/proc/{kernel.pid}/cwd/running").exists()

    def stop() -> None:
        wait_until(replaying)
        request_stop(kernel)

    with pool.lease(timeout=60) as kernel:
        kernel._cells.append((ENDLESS, 60.0))
        assert kernel.execute("import os; os.kill(os.getpid(), 9)").status == "died"
        thread = threading.Thread(target=stop)
        thread.start()
        result = kernel.execute("import time; time.sleep(20)")
        thread.join()
        assert (result.status, result.cancelled) == ("timeout", True)
        assert result.killed or request_stop is Kernel.interrupt
        assert kernel.execute("6 * 7").text.endswith("42")


def test_a_process_that_ends_just_before_a_cell_is_not_blamed(
    pool: KernelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool.lease(timeout=60) as kernel:
        process = kernel._process
        assert process is not None

        def end() -> None:
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(60)

        monkeypatch.setattr(process, "clear_text", end)
        result = kernel.execute("1")
        assert (result.status, result.killed) == ("died", True)
        assert "it crashed, exited, or used too much memory" in result.text


def test_a_loss_of_variables_is_told_though_the_cell_is_stopped(pool: KernelPool) -> None:
    with pool.lease(timeout=60) as kernel:
        process = kernel._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60)
        result = kernel.execute("import time; time.sleep(20)", timeout=0.1)
        assert result.status == "timeout"
        told = result.text.startswith("The Python process had ended. All variables are gone.\n")
        assert told or result.killed  # a busy machine may not end it within the grace period
