"""`eightfold preload`: read a folder's files into the OS page cache."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from eightfold.common.counted_noun import counted

from ...models.hub_cache import parse_repository
from ...models.model_source import locate_model
from ...solver_config import SolverError
from ..exit_codes import ExitCode

if TYPE_CHECKING:
    from eightfold.engine import Preload
    from eightfold.engine.loading.file_preload import PreloadReport

    from ..argument_parser import Subparsers

MIB = 1 << 20
REFRESH_SECONDS = 0.25  # between two updates of the progress bar


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "preload",
        help="read a model folder into the OS page cache",
        description="Read every file of a folder once, largest first, so that the operating "
        "system's page cache holds it; copies of a checkpoint's weights that are not loaded are "
        "left out. Reading stops early if memory would not hold more.",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder to read, or id of a model as for solve --model"
    )
    parser.add_argument(
        "--threads", type=int, default=8, metavar="N", help="reading threads (%(default)s)"
    )
    parser.add_argument(
        "--chunk",
        type=int,
        default=1024,
        metavar="MIB",
        help="MiB that a thread reads in a row (%(default)s)",
    )
    parser.add_argument(
        "--reserve",
        type=int,
        default=1024,
        metavar="MIB",
        help="MiB of memory to leave free (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read the folder and print a report; a file that cannot be read is a failure."""
    from eightfold.engine import Preload, PreloadConfig

    for name, least in (("threads", 1), ("chunk", 1), ("reserve", 0)):
        if getattr(options, name) < least:
            raise SolverError(f"--{name} must be at least {least}, not {getattr(options, name)}.")
    try:
        config = PreloadConfig(options.threads, options.chunk * MIB, options.reserve * MIB)
    except ValueError as error:
        raise SolverError(str(error)) from error
    folder = folder_to_read(options.folder, progress=not options.quiet)
    with Preload(folder, config) as preload:
        if sys.stderr.isatty() and not options.quiet:
            show_progress(preload, sys.stderr)
        while not preload.wait(REFRESH_SECONDS):
            pass
        report = preload.report()
    for name in report.unreadable:
        print(f"could not be read: {name}", file=sys.stderr)
    print(report_line(report))
    if options.json:
        print(json.dumps(report_json(report)), flush=True)
    return ExitCode.FAILED if report.unreadable else ExitCode.OK


def folder_to_read(name: str, *, progress: bool) -> str | Path:
    """Return the folder that a path or a model's id stands for.

    A path that exists may be any folder. What is neither is left for `Preload` to report.

    Raises:
        SolverError: if there is no such model, or it cannot be downloaded.
    """
    if os.path.lexists(os.path.expanduser(name)) or parse_repository(name):
        return locate_model(name, progress=progress)
    return name


def show_progress(preload: Preload, stream: TextIO) -> None:
    """Draw a progress bar on a terminal until the preload ends."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), auto_refresh=False) as bar:
        task = bar.add_task("")
        ended = False
        while not ended:
            ended = preload.wait(REFRESH_SECONDS)
            progress = preload.progress()
            bar.update(task, completed=progress.done, total=progress.total, refresh=True)


def report_json(report: PreloadReport) -> dict[str, Any]:
    """Return the report for a line of JSON."""
    return {
        **asdict(report),
        "seconds": round(report.seconds, 3),
        "rate": round(report.rate),
        "unreadable": list(report.unreadable),
    }


def report_line(report: PreloadReport) -> str:
    """Return the report as one line of text."""
    before, after = (
        "unknown" if resident is None else f"{resident / 1e9:.2f} GB"
        for resident in (report.resident_before, report.resident_after)
    )
    ends = {
        "done": "",
        "memory": "; stopped early, memory would not hold more",
        "stopped": "; stopped early",
    }
    left_out = f"; left out {report.left_out / 1e9:.2f} GB of weights that are not read"
    end = ends[report.ending] + (left_out if report.left_out else "")
    return (
        f"{counted(report.files, 'file')} of {report.total / 1e9:.2f} GB; in the OS page cache "
        f"before: {before}, after: {after}; read {report.read / 1e9:.2f} GB in "
        f"{report.seconds:.1f} s ({report.rate / 1e9:.2f} GB/s){end}"
    )
