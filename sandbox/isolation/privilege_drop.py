"""Restrictions that a kernel process takes on before it runs any cell.

Each protection is tried, and what the machine refuses is reported as missing, never passed over.
There are two steps: Landlock and the change of user must come before there are threads, while the
ban on sockets must come after the kernel has opened its own.

Module state: the answers of `interpreter_paths` and `readable_by_all` are cached. `preload` in
`kernel_main` asks for them while all files can still be read; they hold for all forks.
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

# linux/prctl.h and linux/capability.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 38, 47, 2
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

# Each protection, and what holds if it is active.
PROTECTIONS = {
    "limits": "memory, CPU time, file sizes and open files are limited",
    "privileges": "programs that a cell starts gain no privileges",
    "parent": "kernels end with their template",
    "processes": "the number of processes is limited, which stops fork bombs",
    "files": "only files of the interpreter and of the kernel can be opened",
    "network": "no socket can be opened, bound or connected",
    "signals": "no other process can be signaled or traced",
    "calls": "mounting, tracing, loading kernel modules and the like are refused",
    "gpu": "the GPU's device files cannot be opened",
}

SHARED_USER_ROOM = 1024  # threads left for other programs of a user whom kernels share with them

_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/conda/lib")
_SYSTEM_FILES = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/sys/kernel/ngroups_max"),
    *("/sys/devices/system/cpu", "/dev/urandom", "/dev/random"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")

libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Let the operating system kill this process when `parent` ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@functools.cache
def interpreter_paths() -> tuple[Path, ...]:
    """Return the folders of this interpreter and of the packages that it has imported."""
    paths = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    for name in ("numpy", "sympy", "mpmath", "IPython", "ipykernel", "zmq", "traitlets"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin:
            folder = Path(origin).resolve().parent
            if not any(folder.is_relative_to(path) for path in paths):
                paths.add(folder)
    # A prefix of "/" would open everything, so the library's folder must do.
    return tuple(p if p != Path("/") else Path(os.__file__).parent for p in sorted(paths))


@functools.cache
def readable_by_all() -> bool:
    """Return whether every user can read the interpreter's folders and enter those above them."""
    try:
        return all(
            path.stat().st_mode & 0o005 == 0o005
            and all(parent.stat().st_mode & 0o001 for parent in path.parents)
            for path in interpreter_paths()
        )
    except OSError:
        return False


def threads_of_user(uid: int) -> int:
    """Return the number of threads that `uid` runs, which RLIMIT_NPROC is compared with."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += os.stat(f"/proc/{entry.name}/task").st_nlink - 2
    return count


class Isolation:
    """Takes privileges from this process, and records which protections it then has.

    Args:
        spec: the pool's settings.
        folder: the kernel's folder.
        uid: user id to take on, or None to stay.

    Attributes:
        active: what gives each protection that is active.
        missing: the reason for each one that is not.
    """

    def __init__(self, spec: dict[str, Any], folder: Path, uid: int | None) -> None:
        self.limits: dict[str, int] = spec["limits"]
        self.isolate = bool(spec["isolate"])
        self.transport: str = spec["transport"]
        self.kernels: int = spec["kernels"]
        self.threads_before = 0  # threads that this user runs already
        self.folder = folder
        self.uid = uid
        self.active: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def apply_before_start(self) -> None:
        """Set limits, take on the user, and give up privileges and files; there are no threads."""
        template = os.getppid()
        self._limit()
        if self.isolate:
            self._become_user()
        # The change of user has cleared this setting.
        die_with_parent(template)
        self.active["parent"] = "killed with its template"
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            self.active["privileges"] = "no-new-privileges"
        else:
            self.missing["privileges"] = "prctl refuses no-new-privileges"
        if self.isolate:
            if self.uid is None and os.getuid() != 0:
                self.threads_before = threads_of_user(os.getuid())  # Landlock hides them
            self._confine_files()

    def apply_after_start(self) -> dict[str, Any]:
        """Limit processes and system calls; the kernel has its sockets and threads.

        Returns:
            The active protections, the missing ones with the reasons, these as text, and the uid.
        """
        if not self.isolate:
            for name in PROTECTIONS:
                if name not in self.active:
                    self.missing[name] = "isolate=False"
        else:
            self._limit_processes()
            self._filter_calls()
            self._record_signals()
        self.check()
        missing = [f"{PROTECTIONS[name]} ({why})" for name, why in self.missing.items()]
        uid = os.getuid()
        return {"protections": self.active, "without": self.missing, "missing": missing, "uid": uid}

    def check(self) -> None:
        """Assert that every protection is either active or missing."""
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
        # The system kills a kernel before the solver if memory runs out, and prefers the solver if
        # cores are scarce.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("900")
        with contextlib.suppress(OSError):
            os.nice(self.limits["nice"])
        self.active["limits"] = f"{self.limits['memory'] >> 20} MiB, {self.limits['cpu']} s"

    def _become_user(self) -> None:
        uid = self.uid
        if uid is None:
            return
        read_all = not readable_by_all()  # only root can read the interpreter's files
        if read_all and landlock_rules.abi_version() < 1:
            # Without Landlock the capability would open every file.
            self.uid = None
            return
        try:
            if read_all:
                libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except PermissionError:
            self.uid = None
            return
        if read_all:
            _keep_only(CAP_DAC_READ_SEARCH)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)

    def _confine_files(self) -> None:
        readable = [*map(Path, (*_SYSTEM_FOLDERS, *_SYSTEM_FILES)), *interpreter_paths()]
        readable.append(self.folder.parent / "bin")
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
            self.missing["processes"] = "the kernel runs as root, whom no limit binds"
            return
        limit = count
        if self.uid is None:
            # Everything that this user runs counts, now and later: the other kernels, the solver.
            # A single kernel's share is enforced by the pool's `LimitMonitor`.
            limit = self.threads_before + count * self.kernels + SHARED_USER_ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        whose = f"its own user {self.uid}" if self.uid is not None else "all programs of your user"
        self.active["processes"] = f"at most {limit} for {whose}"

    def _filter_calls(self) -> None:
        try:
            seccomp_filter.install()
        except OSError as error:
            for name in ("network", "calls"):
                self.missing[name] = str(error)
            return
        self.active["network"] = self.active["calls"] = "seccomp"

    def _record_signals(self) -> None:
        if self.uid is not None:
            self.active["signals"] = f"own user {self.uid}"
        elif landlock_rules.abi_version() >= 6 and "files" in self.active:
            self.active["signals"] = f"Landlock {landlock_rules.abi_version()}"
        else:
            self.missing["signals"] = "neither a user of its own nor Landlock 6"


def _keep_only(capability: int) -> None:
    """Keep one capability, also across exec, and drop all others."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = struct.pack("<6I", bit, bit, bit, 0, 0, 0)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
