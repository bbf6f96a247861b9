"""``eightfold sandbox doctor``: shows which protections are active, by starting a kernel."""

from __future__ import annotations

import argparse
import glob
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from eightfold.common.terminal_table import Column, format_table

from .host.kernel_pool import KernelPool
from .isolation.privilege_drop import PROTECTIONS
from .pool_config import PoolConfig
from .sandbox_errors import SandboxError

# Code that tries to get around a protection, and raises an exception if it is stopped.
_ATTEMPTS = {
    "privileges": "assert 'NoNewPrivs:\\t0' in open('/proc/self/status').read()",
    "files": "open({file!r}).read()",
    "calls": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "network": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "signals": "import os; os.kill({parent}, 0)",
    "limits": "bytearray({memory})",
    "gpu": "open({device!r}, 'rb')",
}


@dataclass(frozen=True)
class ProtectionCheck:
    """The result for one protection.

    Attributes:
        name: its name.
        meaning: what holds if it is active.
        active: True if the kernel reports that it is active.
        by: what gives the protection, or the reason why it is missing.
        tried: "held" if an attempt to get around it failed, "broken" if it succeeded, or
            "not tried".
    """

    name: str
    meaning: str
    active: bool
    by: str
    tried: str


def doctor(config: PoolConfig | None = None) -> list[ProtectionCheck]:
    """Start one kernel, ask for its protections, and try to get around them.

    Args:
        config: settings of the pool; None means a pool of one kernel.

    Raises:
        SandboxError: the sandbox cannot start.
        TimeoutError: it did not start in time.
    """
    config = config or PoolConfig(size=1, spares=0)
    checks = []
    device = next(iter(glob.glob("/dev/nvidia[0-9]*")), None)
    with (
        tempfile.NamedTemporaryFile() as file,
        KernelPool(config) as pool,
        pool.lease(timeout=config.start_timeout) as kernel,
    ):
        os.chmod(file.name, 0o644)
        stats = pool.stats()
        active, without = stats["active"]["protections"], stats["active"]["without"]
        values = {"parent": stats["template_pid"], "memory": config.limits.memory + 1}
        values |= {"file": file.name, "device": device}
        for name, meaning in PROTECTIONS.items():
            tried = "not tried"
            if name in _ATTEMPTS and (name != "gpu" or device):
                code = _ATTEMPTS[name].format(**values)
                result = kernel.execute(f"try:\n    {code}\nexcept BaseException: print('held')")
                tried = "held" if result.text == "held" else "broken"
            by = active.get(name) or without.get(name, "unknown")
            checks.append(ProtectionCheck(name, meaning, name in active, by, tried))
        forked = stats["start"] == "fork"
        by = stats["start"] + (f" ({stats['start_note']})" if stats["start_note"] else "")
        meaning = "kernels are forked from a warm template"
        checks.append(ProtectionCheck("start", meaning, forked, by, "held"))
    return checks


def results_table(checks: Sequence[ProtectionCheck]) -> str:
    """Return the results as text: a table on a terminal, one line each elsewhere."""
    columns = [Column("state"), Column("protection"), Column("meaning"), Column("by; attempt")]
    rows = [
        ("on" if one.active else "OFF", one.name, one.meaning, f"[{one.by}; {one.tried}]")
        for one in checks
    ]
    return format_table(columns, rows, plain_titles=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the results.

    Returns:
        0 if all protections are active and have held, 1 if not, 2 if the sandbox cannot start.
    """
    parser = argparse.ArgumentParser(
        prog="eightfold sandbox doctor",
        description="Show which protections of the sandbox are active on this machine.",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    options = parser.parse_args(argv)
    try:
        checks = doctor()
    except (SandboxError, TimeoutError) as error:
        print(f"The sandbox cannot start here: {error}")
        return 2
    print(results_table(checks))
    if options.json:
        print(json.dumps([asdict(check) for check in checks]))
    return 0 if all(check.active and check.tried != "broken" for check in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
