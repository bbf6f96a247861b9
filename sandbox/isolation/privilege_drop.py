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
import importlib.util
import os
import resource
import select
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sandbox_errors import PermanentError
from . import folder_view, landlock_rules, mount_calls, namespaces, seccomp_filter, self_probe
from .kernel_users import threads_of_user

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
    "network": "no socket reaches another program",
    "signals": "no other process can be signaled or traced",
    "others": "modes, owners, priorities and schedulers of what is not its own stay as they are",
    "disk": "all that cells write is limited together",
    "calls": "mounting, tracing, loading kernel modules and the like are refused",
    "gpu": "the GPU's device files cannot be opened",
}

SHARED_USER_ROOM = 1024  # threads left for other programs of a user whom kernels share with them

_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/conda/lib")
_SYSTEM_FILES = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/fonts", "/etc/mime.types", "/etc/ssl/openssl.cnf", "/sys/devices/system/cpu"),
)
# What of /proc and /dev a kernel may read if it sees those of the machine.
_MACHINE_FILES = (
    *("/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/sys/kernel/ngroups_max"),
    *("/dev/urandom", "/dev/random"),
)
_PREFIX_PARTS = ("bin", "lib", "lib64", "include", "share", "etc", "ssl", "pyvenv.cfg")
_PACKAGES = ("numpy", "sympy", "mpmath", "IPython", "ipykernel", "zmq", "traitlets")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Places:
    """Folders of a kernel, as it sees them itself.

    Attributes:
        home: the folder in which cells run.
        temporary: the folder for temporary files.
        sockets: the folder of its channels for Jupyter clients.
        programs: the folder of ``python`` and ``python3``.
    """

    home: Path
    temporary: Path
    sockets: Path
    programs: Path


def kernel_places(folder: Path, programs: Path, *, own_root: bool) -> Places:
    """Return the places of a kernel whose folder in the pool's folder is `folder`."""
    if own_root:
        home, temporary = folder_view.HOME, folder_view.TEMPORARY
        return Places(home, temporary, folder_view.SOCKETS, folder_view.PROGRAMS)
    return Places(folder / "scratch", folder / "scratch", folder / "run", programs)


def die_with_parent(parent: int) -> None:
    """Let the operating system kill this process when its parent ends.

    Args:
        parent: a descriptor of the parent's process.
    """
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    if poller.poll(0):
        os._exit(1)


@functools.cache
def interpreter_paths() -> tuple[Path, ...]:
    """Return the files of this interpreter and of the packages that kernels import.

    Of the interpreter's prefix these are the folders that Python itself uses: whatever else lies
    there, such as the weights of a model, is not for cells.
    """
    paths: list[Path] = []
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, sys.exec_prefix)):
        for name in _PREFIX_PARTS:
            path = Path(prefix, name)
            if path.exists():
                paths += [path, path.resolve()]
    for entry in map(Path, sys.path):  # packages beside the interpreter's own
        if entry.name in ("site-packages", "dist-packages") and entry.is_dir():
            paths += [entry, entry.resolve()]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            folder = Path(spec.origin).parent
            if not any(folder.is_relative_to(path) for path in paths):
                paths += [folder, folder.resolve()]
    return tuple(dict.fromkeys(paths))


def readable_paths() -> list[Path]:
    """Return all files and folders that kernels may read."""
    own = Path(__file__).parents[1]  # this part, which a plain start imports, with what it imports
    parts = [own, own.parent / "__init__.py", own.parent / "common"]
    parts += [path.resolve() for path in parts]
    return [*map(Path, (*_SYSTEM_FOLDERS, *_SYSTEM_FILES)), *interpreter_paths(), *parts]


@functools.cache
def readable_by_all(*, enter: bool) -> bool:
    """Return whether every user can read the interpreter's folders.

    Args:
        enter: also ask whether every user can enter the folders above them.
    """
    try:
        return all(
            path.stat().st_mode & 0o004
            and (not path.is_dir() or path.stat().st_mode & 0o001)
            and (not enter or all(parent.stat().st_mode & 0o001 for parent in path.parents))
            for path in interpreter_paths()
        )
    except OSError:
        return False


class Isolation:
    """Takes privileges from this process, and records which protections it then has.

    Args:
        spec: the pool's settings.
        places: the kernel's folders.
        uid: user id to take on, or None to stay.
        without_namespaces: the reason why the kernel has no namespaces, or None if it has.

    Attributes:
        parent: descriptor of the template's process, if the kernel is its child.
        active: what gives each protection that is active.
        missing: the reason for each one that is not.
    """

    def __init__(
        self, spec: dict[str, Any], places: Places, uid: int | None, without_namespaces: str | None
    ) -> None:
        self.limits: dict[str, int] = spec["limits"]
        self.isolate = bool(spec["isolate"])
        self.strict = bool(spec["strict"])
        self.spec = spec
        self.transport: str = spec["transport"]
        self.kernels: int = spec["kernels"]
        self.threads_before = 0  # threads that this user runs already
        self.places = places
        self.uid = uid
        self.without_namespaces = without_namespaces
        self.parent = -1
        self.landlock = 0  # version of the ABI that confines this process
        self.active: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def apply_before_start(self) -> None:
        """Set limits, take on the user, and give up privileges and files; there are no threads."""
        self._limit()
        if self.isolate:
            self._become_user()
        if self.without_namespaces is None:
            self.active["parent"] = "process namespace"
        else:
            # The change of user has cleared this setting.
            die_with_parent(self.parent)
            self.active["parent"] = "killed with its template"
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            self.active["privileges"] = "no-new-privileges"
        else:
            self.missing["privileges"] = "prctl refuses no-new-privileges"
        if self.isolate:
            if self.uid is None and os.getuid() != 0 and self.without_namespaces:
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
            self._record_others()
            if self.strict:
                self._try()
        self.check()
        missing = [f"{PROTECTIONS[name]} ({why})" for name, why in self.missing.items()]
        uid = os.getuid()
        return {
            "protections": self.active,
            "without": self.missing,
            "missing": missing,
            "uid": uid,
            "namespaces": self.without_namespaces is None,
        }

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
        whole = "control group"
        if self.spec.get("without_group"):
            whole = f"added up by the pool's monitor, as {self.spec['without_group']}"
        each = f"{self.limits['memory'] >> 20} MiB, {self.limits['cpu']} s for each process"
        self.active["limits"] = f"{each}; all together: {whole}" if self.isolate else each

    def _become_user(self) -> None:
        """Take on a user without rights, and give up all capabilities."""
        uid = self.uid
        if uid is None:
            if self.without_namespaces is None:
                mount_calls.unshare(mount_calls.CLONE_NEWUSER)
                namespaces.map_own_user(namespaces.SHOWN_UID)
            _keep_only(None)
        else:
            read_all = not readable_by_all(enter=self.without_namespaces is not None)
            if read_all and self.without_namespaces and landlock_rules.abi_version() < 1:
                raise PermanentError(
                    "only root can read the interpreter, and without namespaces and Landlock a "
                    "kernel that reads it would read everything; install Python in a folder that "
                    "every user may enter"
                )
            if read_all:
                libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            _keep_only(CAP_DAC_READ_SEARCH if read_all else None)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)

    def _confine_files(self) -> None:
        places = self.places
        view = "own root" if self.without_namespaces is None else ""
        if view:
            readable = [Path("/")]
            writable = [places.home, places.temporary, Path("/dev/shm")]
        else:
            readable = [*readable_paths(), *map(Path, _MACHINE_FILES), places.programs]
            writable = [places.home]
        writable += map(Path, _DEVICES)
        try:
            abi = landlock_rules.restrict(
                readable, writable, [places.sockets], network=self.transport == "ipc"
            )
        except OSError as error:
            found = {"files": view, "gpu": view}
            reason = str(error)
        else:
            by = f"{view} and Landlock {abi}" if view else f"Landlock {abi}"
            found, reason = {"files": by, "gpu": by}, ""
            self.landlock = abi
        for name, by in found.items():
            if by:
                self.active[name] = by
            else:
                self.missing[name] = reason

    def _limit_processes(self) -> None:
        count = self.limits["processes"]
        if self.uid is None and namespaces.real_uid() == 0:
            self.missing["processes"] = "the kernel runs as root, whom no limit binds"
            return
        limit = count
        if self.uid is None and self.without_namespaces:
            # Everything that this user runs counts, now and later: the other kernels, the solver.
            # A single kernel's share is enforced by the pool's `LimitMonitor`.
            limit = self.threads_before + count * self.kernels + SHARED_USER_ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        if self.uid is not None:
            whose = f"its own user {self.uid}"
        else:
            whose = "all programs of your user" if self.without_namespaces else "its user namespace"
        self.active["processes"] = f"at most {limit} for {whose}"

    def _filter_calls(self) -> None:
        try:
            shared = self.without_namespaces is not None
            seccomp_filter.install(
                shared_processes=shared,
                shared_files=shared and not self.uid,
                shared_network=shared or self.transport == "tcp",
            )
        except OSError as error:
            for name in ("network", "calls"):
                self.missing[name] = str(error)
            return
        self.active["network"] = self.active["calls"] = "seccomp"

    def _record_others(self) -> None:
        if self.without_namespaces is None:
            self.active["others"] = "process namespace and own root"
            self.active["disk"] = f"a file system of {self.limits['disk'] >> 20} MiB"
            return
        self.active["disk"] = "measured by the pool's monitor"
        if "calls" in self.active:
            self.active["others"] = "seccomp"
        else:
            self.missing["others"] = self.missing["calls"]

    def _try(self) -> None:
        """Count protections that an attempt gets around as missing."""
        broken = self_probe.broken_protections(self.spec, self.without_namespaces is None)
        for name, reason in broken.items():
            if self.active.pop(name, None) is not None:
                self.missing[name] = reason

    def _record_signals(self) -> None:
        if self.without_namespaces is None:
            self.active["signals"] = "process namespace"
        elif self.uid is not None:
            self.active["signals"] = f"own user {self.uid}"
        elif self.landlock >= 6:
            self.active["signals"] = f"Landlock {self.landlock}"
        else:
            self.missing["signals"] = "neither a user of its own nor Landlock 6"


def _keep_only(capability: int | None) -> None:
    """Keep one capability, also across exec, or none, and drop all others."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    bit = 0 if capability is None else 1 << capability
    data = struct.pack("<6I", bit, bit, bit, 0, 0, 0)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    if capability is not None:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
