"""A user id of its own for each kernel, if the pool runs as root."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from pathlib import Path

from .namespaces import effective_capabilities

# CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID and CAP_SETUID: without all of these, kernels of
# other users could not be made, reached or ended.
_NEEDED_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7
KERNEL_THREADS = 16
_WIDE_LIMIT = 1000  # processes; with this many nobody need count those that exist
MAX_SLOTS = 512  # kernels of one pool that can have user ids of their own


def threads_of_user(uid: int) -> int:
    """Return the number of threads that `uid` runs, which RLIMIT_NPROC is compared with."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += os.stat(f"/proc/{entry.name}/task").st_nlink - 2
    return count


def check_room() -> None:
    """Check that this process's user may start a kernel's threads; libzmq aborts without them.

    Raises:
        OSError: RLIMIT_NPROC leaves too few.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit == resource.RLIM_INFINITY or limit > _WIDE_LIMIT:
        return
    # Root's kernels have users of their own, who run nothing yet.
    left = limit - (threads_of_user(os.geteuid()) if os.geteuid() else 0)
    if left < KERNEL_THREADS:
        raise OSError(
            errno.EAGAIN,
            f"the limit on processes (ulimit -u) is {limit} and leaves {max(left, 0)} threads, of "
            f"which a kernel needs {KERNEL_THREADS}",
        )


def private_uid(template: int, slot: int) -> int | None:
    """Return a user id that no account and no other kernel has.

    Args:
        template: process id of the template, from which the user id derives, so that two pools of
            one machine never share one.
        slot: number of the kernel among those of its pool.

    Returns:
        The user id, or None if this process cannot take one on.
    """
    if os.geteuid() != 0 or slot >= MAX_SLOTS:
        return None
    if _NEEDED_CAPABILITIES & ~effective_capabilities():
        return None
    number = template * MAX_SLOTS + slot
    wide = 0x4000_0000 + number
    narrow = 20_000 + number % 40_000  # for user namespaces that know 65,536 ids only
    for uid in (wide, narrow):
        if wide < 0xF000_0000 and _mapped(uid):
            return uid
    return None


def _mapped(uid: int) -> bool:
    """Return whether this user namespace knows `uid`."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= uid < first + count:
                return True
    return False


def kill_all_of(uid: int) -> None:
    """Kill all processes of `uid` in one system call, so that none can escape by forking."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)
