"""A user of its own for each kernel, where the pool runs as root."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def private_uid(template: int, slot: int) -> int | None:
    """A user id that no account and no other kernel has; None where none can be taken on.

    Derived from the template's process id, so that two pools of a machine never share one.
    """
    if os.geteuid() != 0 or slot >= 512:
        return None
    wide = 0x4000_0000 + template * 512 + slot
    narrow = 20_000 + (template * 512 + slot) % 40_000
    for uid in (wide, narrow):
        if wide < 0xF000_0000 and _mapped(uid):
            return uid
    return None


def _mapped(uid: int) -> bool:
    """Whether this user namespace knows `uid`."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= uid < first + count:
                return True
    return False


def kill_all_of(uid: int) -> None:
    """Kill every process of `uid` at one stroke, so that none can fork away."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)
