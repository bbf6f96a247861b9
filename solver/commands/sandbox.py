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
    doctor = parts.add_parser(
        "doctor", help="tell which protections are active here", add_help=False
    )
    doctor.add_argument("arguments", nargs=argparse.REMAINDER)
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hands over to the sandbox's own doctor, which reads the remaining arguments."""
    from eightfold.sandbox.doctor import main

    return int(main(options.arguments))
