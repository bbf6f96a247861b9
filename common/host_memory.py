"""Memory of the host, as far as its control groups let this process use it.

Linux only. On other systems `available_memory` returns ``None``, and `total_memory` reports what
the machine has.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CGROUP = Path("/sys/fs/cgroup")


class _GroupFiles(NamedTuple):
    """Names of a control group's files, and of the entries in memory.stat that can be dropped."""

    limit: str
    usage: str
    caches: tuple[str, ...]


_V1 = _GroupFiles(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_V2 = _GroupFiles("memory.max", "memory.current", ("active_file", "inactive_file"))


def total_memory() -> int:
    """Return the bytes of memory that this process may use at most.

    The least of the machine's physical memory and the limits of the control groups around this
    process. Swap is not counted.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_read_limit(folder / files.limit) for folder, files in _control_groups())
    return min([total, *(limit for limit in limits if limit is not None)])


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or ``None`` if that is unknown.

    The least of what the machine and the control groups around this process still allow. Page
    cache that the kernel would drop counts as available.
    """
    found = [_machine_available()]
    found += [_group_available(folder, files) for folder, files in _control_groups()]
    return min((size for size in found if size is not None), default=None)


def _machine_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _control_groups() -> Iterator[tuple[Path, _GroupFiles]]:
    """Yield the control groups that may limit this process: its own and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    # In a container the paths may be the host's, and what is mounted is the process's own group.
    for line in dict.fromkeys([*lines, "0::/", "0:memory:/"]):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, files = (CGROUP / "memory", _V1) if controllers else (CGROUP, _V2)
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield mount / group.relative_to("/"), files


def _read_limit(path: Path) -> int | None:
    """Return the limit in a control group's file, or ``None`` if there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # cgroup v2 writes "max" if there is no limit
        return None


def _group_available(folder: Path, files: _GroupFiles) -> int | None:
    """Return the bytes that a control group still allows, or ``None`` if it has no limit."""
    limit = _read_limit(folder / files.limit)
    if limit is None:
        return None
    try:
        used = int((folder / files.usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + sum(int(stat.get(name, 0)) for name in files.caches))
    except (OSError, ValueError):
        return None
