"""What a kernel's process gives up before it runs anybody's code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel of the operating system kill this process when `parent` ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Isolation:
    """Puts a kernel's limits and walls up, in two steps around the start of its sockets."""

    def __init__(self, spec: dict[str, Any], folder: Path, uid: int | None) -> None:
        self.spec = spec
        self.folder = folder
        self.uid = uid
        self.active: dict[str, Any] = {}

    def before_start(self) -> None:
        limits = self.spec["limits"]
        for name, value in (
            (resource.RLIMIT_AS, limits["memory"]),
            (resource.RLIMIT_FSIZE, limits["file_size"]),
            (resource.RLIMIT_NOFILE, limits["open_files"]),
            (resource.RLIMIT_CPU, limits["cpu"]),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(name, (value, value))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("900")
        with contextlib.suppress(OSError):
            os.nice(limits["nice"])

    def after_start(self) -> dict[str, Any]:
        return self.active
