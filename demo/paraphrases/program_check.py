"""Run a program of the instruct model and read the integer that it prints."""

from __future__ import annotations

import re
import resource

from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

from ..training_traces import DrawRejected, time_limit

SECONDS = 2.0
MEMORY = 4 * 2**30


def start_worker() -> None:
    """Limit the memory and the files of this process, and import what programs may use."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    new_namespace()


def printed_integer(code: str) -> int | None:
    """Return the last number that a program prints, if it is an integer."""
    try:
        with time_limit(SECONDS):
            output = run_cell(code, new_namespace())
    except DrawRejected:
        return None
    except BaseException:  # a program may leave by any way; only what it printed counts
        return None
    if "Error" in output:
        return None
    numbers = re.findall(r"-?\d+(?:\.\d+)?", output)
    if not numbers:
        return None
    value = float(numbers[-1])
    return int(value) if value == int(value) else None
