"""Waiting for what cells do, instead of sleeping."""

import threading
import time
from collections.abc import Callable

from eightfold.sandbox import Kernel

RUNNING = "open('running', 'w').close()\n"  # starts a cell that `when_running` is to notice


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `true()`; fails when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def when_running(kernel: Kernel, act: Callable[[], None]) -> threading.Thread:
    """Have a thread call `act` once the cell about to be executed has run its first line."""
    assert kernel.connection_file is not None
    mark = kernel.connection_file.parent.parent / "scratch" / "running"

    def wait() -> None:
        wait_until(mark.exists)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
