"""Which protections a kernel started on this machine really has, and which it lacks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

from .config import PoolConfig
from .errors import SandboxError
from .isolation import PROTECTIONS
from .pool import KernelPool


@dataclass(frozen=True)
class Finding:
    """One protection: what it is, whether it is active, and how, or why not."""

    name: str
    meaning: str
    active: bool
    detail: str


def doctor() -> list[Finding]:
    """Start one kernel as the pool would and take its own report.

    Raises:
        SandboxError: where no kernel can be started at all.
    """
    with KernelPool(PoolConfig(size=1, spares=0)) as pool, pool.lease():
        report = pool.stats()["active"]
    active, without = report["protections"], report["without"]
    return [
        Finding(name, meaning, name in active, active.get(name) or without.get(name, "not tried"))
        for name, meaning in PROTECTIONS.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings. Exit code 0: all active; 1: some are not; 3: no kernel starts."""
    parser = argparse.ArgumentParser(
        prog="eightfold sandbox doctor", description="Tells which protections are active here."
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")
    options = parser.parse_args(arguments)
    try:
        findings = doctor()
    except SandboxError as error:
        print(f"No kernel can be started: {error}")
        return 3
    if options.json:
        print(json.dumps({f.name: {"active": f.active, "detail": f.detail} for f in findings}))
    else:
        for finding in findings:
            state = "active " if finding.active else "MISSING"
            print(f"{state}  {finding.name:11}  {finding.meaning} ({finding.detail})")
        print("This is containment of runaway code, not a boundary against an attacker.")
    return 0 if all(finding.active for finding in findings) else 1
