"""Namespaces of users, mounts, processes, networks and IPC, if the machine lets us have them.

Root uses them directly, and any other user, or a root without the capability, through a user
namespace. The template builds a view of the file system that its kernels share. Each kernel has its
own processes, files, IPC and a network without devices, in which Linux counts its sockets, and
without root its own user namespace, in which Linux counts its processes apart from all others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eightfold.common.error_text import one_line

from . import folder_view
from .mount_calls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    clone,
    unshare,
)
from .process_tree import child_pids

SHOWN_UID = 1000  # user id that a kernel sees as its own within a user namespace
PROBE_SECONDS = 5.0
MAX_INHERITED_FDS = 1024  # descriptors that the template may hold
MAX_GUARDIAN_ROUNDS = 1000  # of killing what a template has left; some fork meanwhile
_CAP_SYS_ADMIN = 21
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class ViewSettings:
    """Inputs of the shared part of the view; see `folder_view.build_view`."""

    view: Path
    readable: list[Path]
    programs: Path
    network: bool  # True gives kernels the machine's network, for the transport "tcp"


def effective_capabilities() -> int:
    """Return the bits of this process's effective capabilities."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def needs_user_namespace() -> bool:
    """Return whether mounts need a user namespace here."""
    return os.geteuid() != 0 or not effective_capabilities() >> _CAP_SYS_ADMIN & 1


def map_own_user(shown: int) -> None:
    """Show this process's user and group as `shown` in the user namespace just made.

    Raises:
        OSError: the system refuses.
    """
    # Taken before the namespace existed, as without a map these are the overflow ids.
    uid, gid = _outer_ids
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{shown if shown >= 0 else uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{shown if shown >= 0 else gid} {gid} 1")


_outer_ids = (os.geteuid(), os.getegid())


def real_uid() -> int:
    """Return the user id that the template had before any namespace."""
    return _outer_ids[0]


def probe(settings: ViewSettings, sockets: Path, disk: int) -> str | None:
    """Try all namespaces in a child process; return the reason if the machine refuses any."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            enter_shared(settings)
            inner = fork_first_process()
            if inner == 0:
                try:
                    uid, gid = os.geteuid(), os.getegid()
                    enter_own(settings, sockets, disk, uid, gid, uid)
                    folder_view.leave_old_root()
                    os._exit(0)
                except BaseException as error:
                    os.write(write, one_line(error).encode())
                    os._exit(1)
            os.waitpid(inner, 0)
        except BaseException as error:
            os.write(write, one_line(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    poller = select.poll()
    poller.register(read, select.POLLIN)
    answered = bool(poller.poll(PROBE_SECONDS * 1000))
    reason = os.read(read, 1000).decode("utf-8", "replace") if answered else "no answer"
    os.close(read)
    if not answered:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    os.waitpid(pid, 0)
    return reason or None


def enter_shared(settings: ViewSettings) -> None:
    """Enter the namespaces that all kernels of a pool share; for the template.

    Raises:
        OSError: the system refuses.
    """
    kinds = CLONE_NEWNS | CLONE_NEWIPC
    if needs_user_namespace():
        unshare(CLONE_NEWUSER | kinds)
        map_own_user(-1)
    else:
        unshare(kinds)
    folder_view.build_view(settings.view, settings.readable, settings.programs)


def enter_own(
    settings: ViewSettings, sockets: Path, disk: int, uid: int, gid: int, shown_uid: int
) -> None:
    """Enter a kernel's own namespaces; for the first process in its process namespace.

    Raises:
        OSError: the system refuses.
    """
    unshare(CLONE_NEWNS | CLONE_NEWIPC | (0 if settings.network else CLONE_NEWNET))
    view, readable = settings.view, settings.readable
    folder_view.enter_view(view, readable, sockets, disk, uid, gid, shown_uid)


def fork_first_process() -> int:
    """Fork a child that is the first process of a new process namespace; return as `os.fork` does.

    The child must soon call `os.fork` itself for all else: Python and the C library do not know of
    this fork, which is sound for a process that has a single thread.

    Raises:
        OSError: the system refuses.
    """
    return clone(CLONE_NEWPID)


def fork_from_guardian(descriptors: Iterable[int]) -> None:
    """Go on in a child, of which this process then ends all that it leaves running.

    For machines that have no process namespaces. It returns in the child only.

    Args:
        descriptors: those that only the child may hold.
    """
    adopt_orphans()
    child = os.fork()
    if child == 0:
        adopt_orphans()
        return
    for fd in descriptors:
        os.close(fd)
    while os.waitpid(-1, 0)[0] != child:
        pass
    for _ in range(MAX_GUARDIAN_ROUNDS):
        left = child_pids(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if not left:
            break
    os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parents end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def serve_as_first_process(kernel: int) -> None:
    """Reap processes until the kernel has ended; never return.

    When the first process of a namespace ends, Linux kills all others in it.
    """
    while True:
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)
        except InterruptedError:
            continue
        if pid == kernel:
            os._exit(0)
