"""`eightfold sandbox doctor`: which protections are active on this machine."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sandbox", help="look at the sandbox", description="Looks at the sandbox."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    doctor = parts.add_parser("doctor", help="tell which protections are active here")
    doctor.add_argument("--json", action="store_true", help="end with one line of JSON")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hands over to the sandbox's own doctor."""
    from eightfold.sandbox.doctor import main

    return int(main(["--json"] if options.json else []))
