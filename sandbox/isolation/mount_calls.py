"""Mounts and namespaces, by ctypes.

The numbers are those of ``linux/mount.h`` and ``linux/sched.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
_PIVOT_ROOT, _CLONE = {"x86_64": 155, "aarch64": 41}, {"x86_64": 56, "aarch64": 220}
_MOUNT_SETATTR = 442  # on all architectures
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, action: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{action}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Give this process new namespaces.

    Raises:
        OSError: the system refuses.
    """
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def clone(flags: int) -> int:
    """Fork with new namespaces for the child alone; return as `os.fork` does.

    Raises:
        OSError: the system refuses.
    """
    number = _CLONE.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"clone: its number is not known for {os.uname().machine}")
    # PyDLL keeps the interpreter lock, so that the child holds it as well.
    pid: int = ctypes.PyDLL(None, use_errno=True).syscall(
        ctypes.c_long(number), ctypes.c_ulong(flags | signal.SIGCHLD), None, None, None, None
    )
    _check(pid, "clone")
    return pid


def mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or change a mount.

    Raises:
        OSError: the system refuses.
    """
    arguments = (source.encode(), bytes(target), kind.encode() if kind else None)
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {target}")


def bind(source: Path, target: Path, *, read_only: bool = True, devices: bool = False) -> None:
    """Show `source`, with what is mounted below it, at `target`, without set-user-id programs.

    Raises:
        OSError: the system refuses, or is older than Linux 5.12.
    """
    mount(str(source), target, None, MS_BIND | MS_REC)
    flags = MS_NOSUID | (MS_RDONLY if read_only else 0) | (0 if devices else MS_NODEV)
    attributes = struct.pack("<QQQQ", flags, 0, 0, 0)  # the low flags are those of MS_*
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(bytes(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, f"mount_setattr {target}")


def unmount(target: Path) -> None:
    """Remove a mount; what still uses it keeps it.

    Raises:
        OSError: the system refuses.
    """
    _check(_libc.umount2(bytes(target), MNT_DETACH), f"umount {target}")


def change_root(root: Path) -> None:
    """Make the mount `root` the root of this mount namespace, and the current folder.

    The old root stays on top of it, out of sight, until the caller detaches it by `unmount` of the
    current folder; only then is it out of reach.

    Raises:
        OSError: the system refuses.
    """
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root: its number is not known for {os.uname().machine}")
    os.chdir(root)
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
