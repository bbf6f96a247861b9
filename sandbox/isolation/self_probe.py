"""Attempts to get around the protections, made by a kernel that has them and has run no cell yet.

``PoolConfig.strict`` trusts none that one of these attempts gets around. They take 10 ms.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_GET_PDEATHSIG = 2
_CLONE_NEWUSER, _MS_BIND = 0x10000000, 4096
_MAX_NVIDIA_DEVICES = 16


def broken_protections(spec: dict[str, Any], namespaces: bool) -> dict[str, str]:
    """Return the protections that an attempt got around, with the attempt.

    Args:
        spec: the pool's settings, with the ``template`` process's id.
        namespaces: True if the kernel has its own processes and files.
    """
    attempts: dict[str, list[tuple[str, Callable[[], object]]]] = {
        "limits": [("more memory", lambda: bytearray(spec["limits"]["memory"] + 1))],
        "privileges": [("privileges", _require_privileges)],
        "parent": [("outliving the template", lambda: _require_end(namespaces))],
        "processes": [("more processes", _exceed_processes)],
        "files": [("a file of the pool", lambda: os.open(f"{spec['root']}/lock", os.O_RDONLY))],
        "network": [
            ("a TCP socket", socket.socket),
            ("a netlink socket", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
            ("a datagram", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
        ],
        "signals": [("a signal to the template", lambda: os.kill(spec["template"], 0))],
        "others": [
            ("all programs' priority", lambda: os.setpriority(os.PRIO_USER, 0, 19)),
            ("the template's priority", lambda: os.setpriority(0, spec["template"], 19)),
        ],
        "calls": [
            ("unshare", lambda: _call("unshare", _CLONE_NEWUSER)),
            ("mount", lambda: _call("mount", b"/tmp", b"/tmp", None, _MS_BIND, None)),
            ("ptrace", lambda: _call("ptrace", 16, spec["template"], None, None)),
        ],
        "gpu": [
            (path, lambda path=path: os.open(path, os.O_RDWR))  # type: ignore[misc]
            for path in (f"/dev/nvidia{n}" for n in range(_MAX_NVIDIA_DEVICES))
        ],
    }
    if not namespaces or spec["transport"] == "tcp":
        attempts["network"].append(("a unix socket", lambda: socket.socket(socket.AF_UNIX)))
    if namespaces:
        attempts["disk"] = [("more files", lambda: _exceed_disk(spec["limits"]["disk"]))]
    return {
        name: f"a probe got {what}"
        for name, tries in attempts.items()
        for what, attempt in tries
        if _succeeds(attempt)
    }


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _call(name: str, *arguments: object) -> None:
    """Make a call of the C library; raise `OSError` if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def _require_privileges() -> None:
    """Raise `OSError` unless this process has, or can gain, more than an ordinary user's rights."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    read_only = 1 << 2  # CAP_DAC_READ_SEARCH, for an interpreter that only root can read
    if status["NoNewPrivs"] == "1" and not int(status["CapPrm"], 16) & ~read_only:
        raise PermissionError


def _require_end(namespaces: bool) -> None:
    """Raise `OSError` if Linux ends this process with its template."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    if os.getppid() == 1 if namespaces else number.value == 9:
        raise ProcessLookupError


def _exceed_processes() -> None:
    """Fork beyond a limit; raise `OSError` if that fails."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if status:
            raise BlockingIOError
        return
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _exceed_disk(limit: int) -> None:
    """Raise `OSError` if all files together cannot exceed the limit."""
    status = os.statvfs("/tmp")
    same = all(os.stat(path).st_dev == os.stat("/tmp").st_dev for path in (".", "/dev/shm"))
    if same and status.f_blocks * status.f_frsize <= limit:
        raise OSError
