"""A control group of Linux (cgroup v2) for each kernel, if the machine lets us have them.

Linux then charges each kernel with all memory that it causes, whether or not a process maps it:
files, socket buffers, page tables and shared pages. A machine delegates groups if some group at or
above this process passes the controllers for memory and processes on to its children and lets this
user create them, as systemd does for its users. No process is moved but the kernels.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

CONTROLLERS = ("memory", "pids")
REMOVE_SECONDS = 0.2  # longest wait for the last processes of a group to end
_PREFIX = "eightfold-"


class NoGroupError(OSError):
    """The machine delegates no control group; the message gives the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EOPNOTSUPP, reason)
        self.reason = reason


def find_parent(mounts: str, membership: str) -> Path:
    """Return the nearest group in which this process can make groups with limits.

    Args:
        mounts: content of ``/proc/self/mountinfo``.
        membership: content of ``/proc/self/cgroup``.

    Raises:
        NoGroupError: there is none.
    """
    fields = [line.split() for line in mounts.splitlines() if " - cgroup2 " in line]
    own = [line[3:] for line in membership.splitlines() if line.startswith("0::/")]
    if not fields or not own or ".." in own[0]:
        raise NoGroupError("cgroup v2 is not mounted here")
    mount = Path(fields[0][4])
    group = mount / own[0].lstrip("/")
    for one in (group, *group.parents):
        if _passes_on(one):
            return one
        if one == mount:
            break
    raise NoGroupError("no cgroup v2 above this process passes memory and pids on to it")


def _passes_on(group: Path) -> bool:
    """Return whether this process can make groups with limits in `group`."""
    try:
        passed = (group / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
    return (
        set(CONTROLLERS) <= set(passed)
        and os.access(group, os.W_OK | os.X_OK)
        and os.access(group / "cgroup.procs", os.W_OK)
    )


class ControlGroups:
    """The group of a pool, which holds one for each kernel.

    Args:
        memory: bytes that a kernel may cause.
        processes: processes and threads that a kernel may have.
        parent: the group in which to create that of the pool.

    Raises:
        OSError: the system refuses.
    """

    def __init__(self, memory: int, processes: int, parent: Path) -> None:
        self._limits = {
            "memory.max": memory,
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            "pids.max": processes,
        }
        _remove_stale(parent)
        self._pool = parent / f"{_PREFIX}{os.getpid()}"
        self._pool.mkdir()
        try:
            control = " ".join(f"+{name}" for name in CONTROLLERS)
            (self._pool / "cgroup.subtree_control").write_text(control)
        except OSError:
            self._pool.rmdir()
            raise

    def create(self, name: str) -> Path:
        """Create the group of a kernel.

        Raises:
            OSError: the system refuses.
        """
        group = self._pool / name
        group.mkdir()
        for file, value in self._limits.items():
            try:
                (group / file).write_text(str(value))
            except FileNotFoundError:  # memory.swap.max, in a Linux without swap
                if file in ("memory.max", "pids.max"):
                    raise
        return group

    def close(self) -> None:
        """Remove all groups."""
        for group in _children(self._pool):
            remove(group)
        remove(self._pool)


def enter(group: Path) -> None:
    """Move this process into a group.

    Raises:
        OSError: the system refuses.
    """
    (group / "cgroup.procs").write_text("0")


def remove(group: Path) -> None:
    """Kill what is left in a group and remove it."""
    # Linux before 5.14 has no such file.
    with contextlib.suppress(OSError), (group / "cgroup.kill").open("r+") as stream:
        stream.write("1")
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() < deadline:
                time.sleep(0.001)
                continue
        return


def _children(group: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from [path for path in group.iterdir() if path.is_dir()]


def _remove_stale(parent: Path) -> None:
    """Remove the groups of pools whose template was killed."""
    for pool in _children(parent):
        pid = pool.name.removeprefix(_PREFIX)
        if pool.name.startswith(_PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            for group in _children(pool):
                remove(group)
            remove(pool)
