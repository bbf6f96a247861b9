"""How long a problem may take, so that a run of many problems never passes its limit."""

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
    """Times in seconds.

    Attributes:
        limit: the whole run, from the start of the process.
        reserve: kept for each unsolved problem after the present one.
        floor: least a problem gets while there is time.
        cap: most a problem gets.
        margin: kept at the end for what follows the last problem.
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
                "reserve, floor, cap and margin must be numbers that are not negative"
            )
        if self.cap < self.floor:
            raise ValueError(f"cap ({self.cap:g} s) must be at least the floor ({self.floor:g} s)")


def process_age() -> float:
    """Seconds since this process was started; where that is unknown, since this module's import."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22: ticks after boot
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def allotment(left: float, after: int, teardown: float, config: BudgetConfig) -> float:
    """Seconds for a problem: time left - reserve for each one after it, floored and capped.

    What remains of the run, less the margin and the tear-down expected of this problem, bounds it
    always: the floor never makes a run late.

    Args:
        left: seconds until the run's limit.
        after: unsolved problems after this one.
        teardown: seconds that ending a problem is expected to take beyond its own time.
    """
    room = left - config.margin - teardown
    return max(0.0, min(room, max(config.floor, min(config.cap, room - config.reserve * after))))


@dataclass
class Budget:
    """The clock of a run.

    Attributes:
        teardown: the longest time that a problem took beyond what it was given, so far.
    """

    config: BudgetConfig
    spent_before: float = field(default_factory=process_age)
    teardown: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Seconds since the process started."""
        return self.spent_before + time.monotonic() - self._start

    def left(self) -> float:
        """Seconds until the limit."""
        return self.config.limit - self.spent()

    def grant(self, after: int) -> float:
        """Seconds for the next problem, with `after` unsolved ones behind it."""
        return allotment(self.left(), after, self.teardown, self.config)

    def record(self, granted: float, taken: float) -> None:
        """Notes that a problem with `granted` seconds was over, cleaned up, after `taken`."""
        self.teardown = max(self.teardown, taken - granted)


@dataclass(frozen=True)
class SimulatedRun:
    """A simulated run: seconds granted to each problem, whether it was hard, the whole time."""

    granted: tuple[float, ...]
    hard: tuple[bool, ...]
    total: float


PATTERNS = ("first", "last", "everywhere", "shuffled")


def simulate(
    rng: random.Random, pattern: str, config: BudgetConfig | None = None, problems: int = 50
) -> SimulatedRun:
    """Plays a run whose hard problems take all they get and whose easy ones take 10 to 240 s.

    Start-up takes 60 to 900 s, each tear-down up to 15 s. Hard problems, 5 to 30 of them, come
    "first", "last", "shuffled", or are all of them ("everywhere").

    Raises:
        ValueError: another pattern.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, not {pattern!r}")
    config = config or BudgetConfig()
    count = (
        problems if pattern == "everywhere" else rng.randint(min(5, problems), problems * 3 // 5)
    )
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
