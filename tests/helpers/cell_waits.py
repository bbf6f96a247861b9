"""Waits for conditions and for cells, which tests use instead of sleeping."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from eightfold.sandbox import Kernel

RUNNING = "open('running', 'w').close()\n"  # the first line of a cell for `when_running`


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fail if that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def when_running(kernel: Kernel, action: Callable[[], None]) -> threading.Thread:
    """Start a thread that calls `action` once the next cell has run its first line, `RUNNING`."""
    # The folder in which cells run may lie on a file system that only the kernel sees.
    mark = Path(f"/proc/{kernel.pid}/cwd/running")

    def wait() -> None:
        wait_until(mark.exists)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
