"""`eightfold report`: write a page that shows a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from ..argument_parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="write a page that shows a run",
        description="Write a page with the scores, plots, problems and conversations of a run. It "
        "opens from disk and loads nothing. If it would be larger than 10 MB, each problem gets a "
        "page of its own in a folder beside it.",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the page to write, or to replace (report.html in the folder of the run)",
    )
    parser.add_argument(
        "--compare",
        metavar="RUN2",
        help="folder of another run of the same problems, to show beside RUN with a paired test",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from ...evaluation.recorded_run import check_output
    from ...report.report_writer import write_report

    folder = Path(options.folder)
    out = Path(options.out) if options.out else folder / "report.html"
    check_output(out)
    files = write_report(folder, out, Path(options.compare) if options.compare else None)
    size = sum(file.stat().st_size for file in files) / 1e6
    pages = "" if len(files) == 1 else f", with {len(files) - 1} pages of problems beside it"
    print(f"{files[0]} ({size:.1f} MB{pages})")
    return ExitCode.OK
