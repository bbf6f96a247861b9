"""What a kernel's process gives up before it runs anybody's code.

Each protection is tried; what the machine refuses is reported as missing, never passed over. Two
steps, because a kernel's own sockets must be opened before sockets are forbidden, while Landlock
and the user id must be set before there are threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

from . import landlock_rules, seccomp_filter

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
CAP_DAC_READ_SEARCH = 2
_CAP_VERSION_3 = 0x20080522

# Each protection and what it means to be without it.
PROTECTIONS = {
    "limits": "memory, processor time, file size and descriptors are limited",
    "privileges": "programs that a cell starts gain no privileges",
    "parent": "kernels end with their template",
    "processes": "the number of processes is limited (against fork bombs)",
    "files": "only the interpreter's and the kernel's own files can be opened",
    "network": "no socket can be opened, bound or connected",
    "signals": "no other process can be signalled or traced",
    "calls": "mounting, tracing, kernel modules and the like are refused",
    "gpu": "the GPU's device files cannot be opened",
}

SHARED_USER_ROOM = 1024  # threads left to other programs where kernels have no user of their own

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/conda/lib")
_DETAILS = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/sys/kernel/ngroups_max"),
    *("/sys/devices/system/cpu", "/dev/urandom", "/dev/random"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")

libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the operating system kill this process when `parent` ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@functools.cache
def interpreter_paths() -> tuple[Path, ...]:
    """The folders from which this interpreter and what it has imported come."""
    paths = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    for name in ("numpy", "sympy", "mpmath", "IPython", "ipykernel", "zmq", "traitlets"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin:
            folder = Path(origin).resolve().parent
            if not any(folder.is_relative_to(path) for path in paths):
                paths.add(folder)
    # A prefix of "/" would open everything: then the library folder alone.
    return tuple(p if p != Path("/") else Path(os.__file__).parent for p in sorted(paths))


@functools.cache
def open_to_all() -> bool:
    """Whether every user can read the interpreter's folders and pass through those above."""
    try:
        return all(
            path.stat().st_mode & 0o005 == 0o005
            and all(parent.stat().st_mode & 0o001 for parent in path.parents)
            for path in interpreter_paths()
        )
    except OSError:
        return False


def threads_of_user(uid: int) -> int:
    """How many threads `uid` runs: what RLIMIT_NPROC is compared with."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += os.stat(f"/proc/{entry.name}/task").st_nlink - 2
    return count


class Isolation:
    """Puts a kernel's limits and walls up. `uid`: the user to become, None to stay."""

    def __init__(self, spec: dict[str, Any], folder: Path, uid: int | None) -> None:
        self.limits: dict[str, int] = spec["limits"]
        self.walls = bool(spec["isolate"])
        self.transport: str = spec["transport"]
        self.kernels: int = spec["kernels"]
        self.others = 0  # threads that this user runs already
        self.folder = folder
        self.uid = uid
        self.active: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def before_start(self) -> None:
        """Limits, user, privileges, files: before the first thread."""
        template = os.getppid()
        self._limit()
        if self.walls:
            self._become_user()
        # The change of user clears it, so that it comes after.
        die_with_parent(template)
        self.active["parent"] = "killed with its template"
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            self.active["privileges"] = "no-new-privileges"
        else:
            self.missing["privileges"] = "prctl refuses no-new-privileges"
        if self.walls:
            if self.uid is None and os.getuid() != 0:
                self.others = threads_of_user(os.getuid())  # Landlock will hide them
            self._confine_files()

    def after_start(self) -> dict[str, Any]:
        """Processes and system calls: with the kernel's sockets and threads there."""
        if not self.walls:
            for name in PROTECTIONS:
                if name not in self.active:
                    self.missing[name] = "isolate=False"
        else:
            self._limit_processes()
            self._filter_calls()
            self._judge_signals()
        self.check()
        missing = [f"{PROTECTIONS[name]} ({why})" for name, why in self.missing.items()]
        uid = os.getuid()
        return {"protections": self.active, "without": self.missing, "missing": missing, "uid": uid}

    def check(self) -> None:
        """Every protection is accounted for exactly once."""
        assert not self.active.keys() & self.missing.keys()
        assert self.active.keys() | self.missing.keys() == PROTECTIONS.keys()

    def _limit(self) -> None:
        for name, key in (
            (resource.RLIMIT_AS, "memory"),
            (resource.RLIMIT_FSIZE, "file_size"),
            (resource.RLIMIT_NOFILE, "open_files"),
            (resource.RLIMIT_CPU, "cpu"),
        ):
            _, hard = resource.getrlimit(name)
            value = self.limits[key]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(name, (value, value))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # The kernel goes before the solver when memory runs out, and waits when cores are short.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("900")
        with contextlib.suppress(OSError):
            os.nice(self.limits["nice"])
        self.active["limits"] = f"{self.limits['memory'] >> 20} MiB, {self.limits['cpu']} s"

    def _become_user(self) -> None:
        uid = self.uid
        if uid is None:
            return
        keep = not open_to_all()
        if keep and landlock_rules.version() < 1:
            # Reading everything is what this would allow without Landlock.
            self.uid = None
            return
        try:
            if keep:
                libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except PermissionError:
            self.uid = None
            return
        if keep:
            _keep_only(CAP_DAC_READ_SEARCH)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)

    def _confine_files(self) -> None:
        readable = [*map(Path, (*_SYSTEM, *_DETAILS)), *interpreter_paths()]
        writable = [self.folder, *map(Path, _DEVICES)]
        try:
            abi = landlock_rules.restrict(readable, writable, network=self.transport == "ipc")
        except OSError as error:
            for name in ("files", "gpu"):
                self.missing[name] = str(error)
            return
        self.active["files"] = self.active["gpu"] = f"Landlock {abi}"

    def _limit_processes(self) -> None:
        count = self.limits["processes"]
        if os.getuid() == 0:
            self.missing["processes"] = "the kernel runs as root, which no limit holds"
            return
        limit = count
        if self.uid is None:
            # All that this user runs counts, what the other kernels and the solver will run too;
            # a single kernel's share is kept by the pool's watch.
            limit = self.others + count * self.kernels + SHARED_USER_ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        whose = f"of its own user {self.uid}" if self.uid is not None else "of your user, in all"
        self.active["processes"] = f"at most {limit} {whose}"

    def _filter_calls(self) -> None:
        try:
            seccomp_filter.install()
        except OSError as error:
            for name in ("network", "calls"):
                self.missing[name] = str(error)
            return
        self.active["network"] = self.active["calls"] = "seccomp"

    def _judge_signals(self) -> None:
        if self.uid is not None:
            self.active["signals"] = f"own user {self.uid}"
        elif landlock_rules.version() >= 6 and "files" in self.active:
            self.active["signals"] = f"Landlock {landlock_rules.version()}"
        else:
            self.missing["signals"] = "neither a user of its own nor Landlock 6"


def _keep_only(capability: int) -> None:
    """Keep one capability, through exec too; the interpreter lies where only root may read."""
    header = struct.pack("<Ii", _CAP_VERSION_3, 0)
    bit = 1 << capability
    data = struct.pack("<6I", bit, bit, bit, 0, 0, 0)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    libc.prctl(PR_CAP_AMBIENT, 2, capability, 0, 0)
