"""`eightfold bundle`: make the folder that a notebook without internet installs from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted
from eightfold.common.terminal_table import Column, format_table

from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

COLUMNS = (Column("size", right=True), Column("wheel"))


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "bundle",
        help="make the folder that a Kaggle notebook installs from",
        description="Make a folder with the wheel of eightfold, the wheels that Kaggle's image "
        "lacks, a lock file with hashes, the notebook, and a README with the next steps.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--python", default="3.12", metavar="X.Y", help="Python version of the image (%(default)s)"
    )
    parser.add_argument(
        "--platform",
        action="append",
        metavar="TAG",
        help="platform tag of wheels that the image accepts; may be repeated",
    )
    parser.add_argument("--freeze", metavar="FILE", help="output of pip freeze in the image")
    parser.add_argument("--model-less", action="store_true", help="leave the bundled model out")
    parser.add_argument(
        "--no-dependencies",
        action="store_true",
        help="only the wheel of eightfold; needs no network",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the folder and list its wheels."""
    from ...kaggle.offline_bundle import BundleConfig, make_bundle

    changes = {"platforms": tuple(options.platform)} if options.platform else {}
    config = BundleConfig(
        Path(options.out),
        options.python,
        model_less=options.model_less,
        freeze=None if options.freeze is None else Path(options.freeze),
        dependencies=not options.no_dependencies,
        **changes,
    )
    wheels = make_bundle(config)
    rows = [(f"{wheel.stat().st_size / 1e6:.1f} MB", wheel.name) for wheel in wheels]
    print(format_table(COLUMNS, rows, plain_titles=False))
    print(
        f"{counted(len(wheels), 'wheel')}, eightfold.lock, aimo3.ipynb, kernel-metadata.json and "
        f"README.md are in {options.out}; README.md says what to do next"
    )
    return ExitCode.OK
