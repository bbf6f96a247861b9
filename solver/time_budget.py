"""The time that each problem of a run may take, so that the run never exceeds its limit."""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

_IMPORTED = time.monotonic()


@dataclass(frozen=True)
class BudgetConfig:
    """Settings of a time budget, in seconds.

    Attributes:
        limit: time of the whole run, from the start of the process.
        reserve: time kept for each unsolved problem after the current one.
        floor: least time of a problem, unless less is left.
        cap: most time of a problem.
        margin: time kept for what follows the last problem.

    Raises:
        ValueError: if a time is negative, infinite or not a number, or the cap is below the floor.
    """

    limit: float = 18_000.0
    reserve: float = 300.0
    floor: float = 60.0
    cap: float = 900.0
    margin: float = 60.0

    def __post_init__(self) -> None:
        times = (self.limit, self.reserve, self.floor, self.cap, self.margin)
        if not all(0 <= seconds < math.inf for seconds in times) or self.limit == 0:
            raise ValueError(
                "limit must be a positive number of seconds; "
                "reserve, floor, cap and margin must not be negative or infinite."
            )
        if self.cap < self.floor:
            raise ValueError(f"cap ({self.cap:g} s) must be at least the floor ({self.floor:g} s).")


def process_age() -> float:
    """Return the seconds since this process was started.

    If that is unknown, return the seconds since this module was imported.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22: ticks after boot
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def allotment(left: float, after: int, teardown: float, config: BudgetConfig) -> float:
    """Return the seconds for a problem: the time left, less the reserve of each one after it.

    The floor and the cap apply. The time left in the run, less the margin and the expected
    teardown, is always an upper bound, so that the floor never makes a run late.

    Args:
        left: seconds until the run's limit.
        after: number of unsolved problems after this one.
        teardown: seconds that the end of a problem is expected to take beyond its own time.
        config: settings of the budget.
    """
    room = left - config.margin - teardown
    return max(0.0, min(room, max(config.floor, min(config.cap, room - config.reserve * after))))


@dataclass
class Budget:
    """The clock of a run.

    Attributes:
        config: settings of the budget.
        spent_before: seconds from the start of the process to the creation of this clock.
        teardown: longest time, so far, that a problem took beyond what it was granted.
    """

    config: BudgetConfig
    spent_before: float = field(default_factory=process_age)
    teardown: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Return the seconds since the process started."""
        return self.spent_before + time.monotonic() - self._start

    def left(self) -> float:
        """Return the seconds until the limit."""
        return self.config.limit - self.spent()

    def grant(self, after: int) -> float:
        """Return the seconds for the next problem, which `after` unsolved ones follow."""
        return allotment(self.left(), after, self.teardown, self.config)

    def record(self, granted: float, taken: float) -> None:
        """Note that a problem with `granted` seconds took `taken` seconds, cleanup included."""
        self.teardown = max(self.teardown, taken - granted)


@dataclass(frozen=True)
class SimulatedRun:
    """A simulated run.

    Attributes:
        granted: seconds granted to each problem.
        hard: True for each hard problem.
        total: seconds of the whole run.
    """

    granted: tuple[float, ...]
    hard: tuple[bool, ...]
    total: float


PATTERNS = ("first", "last", "everywhere", "shuffled")


def simulate(
    rng: random.Random, pattern: str, config: BudgetConfig | None = None, problems: int = 50
) -> SimulatedRun:
    """Simulate a run: hard problems take all the time they get, easy ones 10 to 240 s.

    The start takes 60 to 900 s, and each teardown up to 15 s.

    Args:
        rng: source of the random times.
        pattern: "first", "last" or "shuffled" for the place of the hard problems, which are at
            least 5 (if there are so many) and at most 3/5 of all; "everywhere" makes all hard.
        config: settings of the budget.
        problems: number of problems.

    Raises:
        ValueError: if the pattern is unknown.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, not {pattern!r}.")
    config = config or BudgetConfig()
    least = min(5, problems)
    most = max(least, problems * 3 // 5)
    count = problems if pattern == "everywhere" else rng.randint(least, most)
    hard = [True] * count + [False] * (problems - count)
    if pattern == "last":
        hard.reverse()
    elif pattern == "shuffled":
        rng.shuffle(hard)
    clock, teardown, granted = rng.uniform(60, 900), 0.0, []
    for index, is_hard in enumerate(hard):
        given = allotment(config.limit - clock, problems - 1 - index, teardown, config)
        used = given if is_hard else min(given, rng.uniform(10, 240))
        ending = rng.uniform(0, 15) if used > 0 else 0.0
        clock += used + ending
        teardown = max(teardown, used + ending - given)
        granted.append(given)
    return SimulatedRun(tuple(granted), tuple(hard), clock)
