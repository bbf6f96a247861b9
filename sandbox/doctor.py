"""``eightfold sandbox doctor``: which protections are on here, found out by starting a kernel."""

from __future__ import annotations

import argparse
import glob
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .host.kernel_pool import KernelPool
from .isolation.privilege_drop import PROTECTIONS
from .pool_config import PoolConfig
from .sandbox_errors import SandboxError

# What a cell tries for each protection; it prints "held" where it was stopped.
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
class Row:
    """One protection: whether it is on, by what, and whether an attempt against it failed."""

    name: str
    meaning: str
    active: bool
    by: str  # what gives it, or why it is missing
    tried: str  # "held", "broken" or "not tried"


def doctor(config: PoolConfig | None = None) -> list[Row]:
    """Start one kernel, ask what it gave up, and try to get round it. Raises `SandboxError`."""
    config = config or PoolConfig(size=1, spares=0)
    rows = []
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
            rows.append(Row(name, meaning, name in active, by, tried))
        by = stats["start"] + (f" ({stats['start_note']})" if stats["start_note"] else "")
        rows.append(Row("start", "kernels are forked warm", stats["start"] == "fork", by, "held"))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        state = "on " if row.active else "OFF"
        lines.append(f"{state}  {row.name:<11}{row.meaning}  [{row.by}; {row.tried}]")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 where all protections are on and held, 1 where not, 2 for no sandbox."""
    parser = argparse.ArgumentParser(
        prog="eightfold sandbox doctor", description="Which protections of the sandbox are on here."
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(argv)
    try:
        rows = doctor()
    except (SandboxError, TimeoutError) as error:
        print(f"The sandbox cannot start here: {error}")
        return 2
    print(table(rows))
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    return 0 if all(row.active and row.tried != "broken" for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
