"""``eightfold sandbox doctor``: shows which protections are active, by starting a kernel."""

from __future__ import annotations

import argparse
import glob
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eightfold.common.terminal_table import Column, format_table

from .host.kernel_pool import KernelPool
from .host.leased_kernel import Kernel
from .isolation.privilege_drop import PROTECTIONS
from .pool_config import MIB, PoolConfig
from .sandbox_errors import SandboxError

# Code that tries to get around a protection, and raises an exception or ends if it is stopped.
_ATTEMPTS = {
    "privileges": "assert 'NoNewPrivs:\\t0' in open('/proc/self/status').read()",
    "files": "open({file!r}).read()",
    "calls": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "network": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "signals": "import os; os.kill({parent}, 0)",
    "others": "import os; os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
    "limits": "bytearray({memory})",
    "gpu": "open({device!r}, 'rb')",
    "disk": (
        "import os, time\n    flags = os.O_CREAT | os.O_RDWR\n"
        "    for name in 'fg': os.posix_fallocate(os.open(name, flags), 0, {half})\n"
        "    time.sleep(1)"
    ),
    # Threads count as processes do, and start in a tenth of the time.
    "processes": (
        "import threading; stop = threading.Event()\n"
        "    try: [threading.Thread(target=stop.wait).start() for _ in range({processes})]\n"
        "    finally: stop.set()"
    ),
}
PROBE_SECONDS = 2.0  # for all attempts together


@dataclass(frozen=True)
class ProtectionCheck:
    """The result for one protection.

    Attributes:
        name: its name.
        meaning: what holds if it is active.
        active: True if the kernel reports that it is active.
        by: what gives the protection, or the reason why it is missing.
        tried: "held" if an attempt to get around it failed, "broken" if it succeeded, or
            "not tried", also for lack of time.
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
        limits = config.limits
        values = {"parent": stats["template_pid"], "memory": limits.memory + 1}
        values |= {"file": file.name, "device": device, "processes": limits.processes}
        values |= {"half": limits.disk // 2 + MIB}
        deadline = time.monotonic() + PROBE_SECONDS
        for name, meaning in PROTECTIONS.items():
            tried = "not tried"
            if name == "parent":
                continue  # tried last
            if name in _ATTEMPTS and (name != "gpu" or device):
                code = _ATTEMPTS[name].format(**values)
                code = f"try:\n    {code}\nexcept BaseException: print('held')"
                tried = _attempt(kernel, code, deadline - time.monotonic())
            by = active.get(name) or without.get(name, "unknown")
            checks.append(ProtectionCheck(name, meaning, name in active, by, tried))
        forked = stats["start"] == "fork"
        by = stats["start"] + (f" ({stats['start_note']})" if stats["start_note"] else "")
        meaning = "kernels are forked from a warm template"
        checks.append(ProtectionCheck("start", meaning, forked, by, "held"))
        ended = _ends_with_template(kernel.pid, stats["template_pid"])
        by = active.get("parent") or without.get("parent", "unknown")
        tried = "held" if ended else "broken"
        meaning = PROTECTIONS["parent"]
        checks.append(ProtectionCheck("parent", meaning, "parent" in active, by, tried))
    return checks


def _attempt(kernel: Kernel, code: str, seconds: float) -> str:
    """Run an attempt that prints "held" if it fails; return the result, as in `tried`."""
    if seconds <= 0:
        return "not tried"
    result = kernel.execute(code, timeout=seconds)
    if result.text == "held" or result.status == "died":
        return "held"
    return "not tried" if result.status == "timeout" else "broken"


def _ends_with_template(kernel: int | None, template: int) -> bool:
    """Kill the template, and return whether the kernel ends with it."""
    if kernel is None:  # an attempt has ended it
        return True
    os.kill(template, signal.SIGKILL)
    deadline = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{kernel}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def results_table(checks: Sequence[ProtectionCheck]) -> str:
    """Return the results as text: a table on a terminal, one line each elsewhere."""
    columns = [Column("state"), Column("protection"), Column("meaning"), Column("by; attempt")]
    rows = [(_state(one), one.name, one.meaning, f"[{one.by}; {one.tried}]") for one in checks]
    return format_table(columns, rows, plain_titles=False)


def _state(check: ProtectionCheck) -> str:
    if not check.active:
        return "MISSING"
    return {"held": "proven", "broken": "BROKEN"}.get(check.tried, "on")


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
