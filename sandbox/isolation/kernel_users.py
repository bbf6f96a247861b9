"""A user id of its own for each kernel, if the pool runs as root."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

MAX_SLOTS = 512  # kernels of one pool that can have user ids of their own


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
