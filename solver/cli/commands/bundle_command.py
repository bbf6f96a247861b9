"""`eightfold bundle`: everything that a notebook without internet needs, in one folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..command_line import OK


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bundle",
        help="make the folder that a Kaggle notebook installs from",
        description="Makes our wheel, the wheels that Kaggle's image lacks, a lock file with "
        "hashes, the notebook and a README with the steps.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="the image's (%(default)s)")
    parser.add_argument(
        "--platform", action="append", metavar="TAG", help="wheel tags the image takes"
    )
    parser.add_argument("--freeze", metavar="FILE", help="pip freeze of the image")
    parser.add_argument("--model-less", action="store_true", help="leave the bundled model out")
    parser.add_argument(
        "--no-dependencies", action="store_true", help="only our wheel; needs no network"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Makes the folder and lists it."""
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
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:8.1f} MB  {wheel.name}")
    print(f"{len(wheels)} wheels, eightfold.lock, aimo3.ipynb and README.md are in {options.out}")
    return OK
