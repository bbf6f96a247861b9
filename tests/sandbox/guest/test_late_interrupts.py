"""Signals that reach a kernel just before a cell, or just after its end. About 10 s."""

from collections.abc import Iterator

import pytest

from eightfold.sandbox import Kernel, KernelPool, PoolConfig

SETUP = (
    "import asyncio, os, signal, threading\n"
    "from eightfold.sandbox.guest.cell_streams import CurrentCell\n"
    "shell = get_ipython(); kernel = shell.kernel\n"
)
# Each replaces a step of the kernel by one that first sends this process a signal, once.
BEFORE_THE_CELL = (
    "def step(allow):\n"
    "    del kernel._forward_input\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "    kernel._forward_input(allow)\n"
    "kernel._forward_input = step"
)
AFTER_THE_CELL = (
    "class Restorer:\n"
    "    def restore(self):\n"
    "        if kernel.restorer is self:\n"
    "            kernel.restorer = saved\n"
    "            os.kill(os.getpid(), signal.SIGINT)\n"
    "        saved.restore()\n"
    "saved, kernel.restorer = kernel.restorer, Restorer()"
)
ALARM_AFTER_THE_CELL = (
    "class Late(Exception): pass\n"
    "def expire(*_): raise Late('too late')\n"
    "signal.signal(signal.SIGALRM, expire)\n"
    "def should_run_async(*args, **options):\n"
    "    del shell.should_run_async\n"
    "    signal.raise_signal(signal.SIGALRM)\n"
    "shell.should_run_async = should_run_async"
)
BEFORE_THE_TASK = (
    "original = asyncio.ensure_future\n"
    "def ensure_future(awaited, **options):\n"
    "    task = original(awaited, **options)\n"
    "    if awaited.__name__ == 'run_cell_async':\n"
    "        asyncio.ensure_future = original\n"
    "        os.kill(os.getpid(), signal.SIGINT)\n"
    "    return task\n"
    "asyncio.ensure_future = ensure_future"
)
FLOOD = "_ = os.write(1, b'x' * 100_001)"  # one character more than a cell may print
# The thread that sees the flood interrupts the cell late: in the next one, if that can begin.
LATE_FLOOD = (
    "begun, sent, original = threading.Event(), threading.Event(), os.killpg\n"
    "def interrupt(*target):\n"
    "    begun.wait(1)\n"
    "    original(*target)\n"
    "    sent.set()\n"
    f"os.killpg = interrupt\n{FLOOD}"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(PoolConfig(size=1, spares=1, timeout=20)) as pool:
        yield pool


@pytest.fixture
def kernel(pool: KernelPool) -> Iterator[Kernel]:
    with pool.lease(timeout=60) as kernel:
        assert kernel.execute(SETUP).status == "ok"
        yield kernel


@pytest.mark.parametrize("change", [BEFORE_THE_CELL, AFTER_THE_CELL])
def test_an_interrupt_outside_the_cell_changes_nothing(kernel: Kernel, change: str) -> None:
    assert kernel.execute(change).status == "ok"
    result = kernel.execute("kept = 6 * 7\nkept")
    assert (result.status, result.text) == ("ok", "42")
    assert kernel.execute("kept").text == "42"


def test_an_alarm_beyond_the_cell_is_an_error(kernel: Kernel) -> None:
    assert kernel.execute(ALARM_AFTER_THE_CELL).status == "ok"
    result = kernel.execute("1")
    assert (result.status, result.error) == ("error", "Late")
    assert "Late: too late" in result.text
    assert kernel.execute("6 * 7").text == "42"


def test_a_task_interrupted_before_it_begins_never_runs(kernel: Kernel) -> None:
    assert kernel.execute(BEFORE_THE_TASK).status == "ok"
    result = kernel.execute("ran = True\nawait asyncio.sleep(0)")
    assert (result.status, result.error) == ("error", "KeyboardInterrupt")
    assert kernel.execute("await asyncio.sleep(0)\n'ran' in globals()").text == "False"


def test_a_flood_at_the_end_of_a_cell_is_its_error(kernel: Kernel) -> None:
    for _ in range(5):
        result = kernel.execute(FLOOD)
        assert (result.status, result.error) == ("error", "OutputLimit")
        assert result.text.endswith("OutputLimit: more than 100000 characters printed; print less")
        assert kernel.execute("6 * 7").text == "42"


def test_a_flood_does_not_interrupt_the_next_cell(kernel: Kernel) -> None:
    result = kernel.execute(LATE_FLOOD)
    assert (result.status, result.error) == ("error", "OutputLimit")
    # There may be no interrupt at all, if the cell had ended before the thread saw the flood.
    result = kernel.execute("begun.set()\n_ = sent.wait(1)\n'sound'")
    assert (result.status, result.text) == ("ok", "'sound'")
