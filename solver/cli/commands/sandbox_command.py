"""`eightfold sandbox doctor`: show which protections are active on this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from eightfold.sandbox.platform_support import check_platform

if TYPE_CHECKING:
    from ..argument_parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "sandbox", help="inspect the sandbox", description="Inspect the sandbox."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    doctor = parts.add_parser("doctor", help="show which protections are active on this machine")
    doctor.add_argument("--json", action="store_true", help="end with one line of JSON")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the sandbox's own command and return its exit code."""
    check_platform()
    from eightfold.sandbox.doctor import main

    return int(main(["--json"] if options.json else []))
