"""`eightfold preload`: fills the page cache with a folder's files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from ...solver_config import SolverError
from ..command_line import FAILED, OK

if TYPE_CHECKING:
    from eightfold.engine.loading.file_preload import Progress, Report

BAR = 24  # characters
MIB = 1 << 20


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "preload",
        help="read a model folder into the page cache",
        description="Reads every file of a folder once, largest first, so that the operating "
        "system's page cache holds it; stops where memory would not hold more.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder to read")
    parser.add_argument("--threads", type=int, default=8, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--chunk", type=int, default=1024, metavar="MIB", help="read in a row (%(default)s MiB)"
    )
    parser.add_argument(
        "--reserve",
        type=int,
        default=1024,
        metavar="MIB",
        help="memory to leave alone (%(default)s MiB)",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the folder; FAILED where a file could not be read."""
    from eightfold.engine.loading.file_preload import Preload, PreloadConfig

    for name, least in (("threads", 1), ("chunk", 1), ("reserve", 0)):
        if getattr(options, name) < least:
            raise SolverError(f"--{name} must be at least {least}, not {getattr(options, name)}")
    try:
        config = PreloadConfig(options.threads, options.chunk * MIB, options.reserve * MIB)
    except ValueError as error:
        raise SolverError(str(error)) from error
    with Preload(options.folder, config) as preload:
        try:
            while not preload.wait(0.25):
                if not options.quiet:
                    show(preload.progress(), sys.stderr)
            if not options.quiet:
                show(preload.progress(), sys.stderr)
        finally:
            sys.stderr.write("\n" if sys.stderr.isatty() and not options.quiet else "")
        report = preload.report()
    for name in report.unreadable:
        print(f"could not be read: {name}", file=sys.stderr)
    print(sentence_of(report))
    if options.json:
        print(json.dumps(rounded(report)), flush=True)
    return FAILED if report.unreadable else OK


def rounded(report: Report) -> dict[str, Any]:
    """The report for a line of JSON."""
    return {
        **asdict(report),
        "seconds": round(report.seconds, 3),
        "rate": round(report.rate),
        "unreadable": list(report.unreadable),
    }


def show(progress: Progress, stream: TextIO) -> None:
    """Draws the bar over itself; nothing where the stream is no terminal."""
    if not stream.isatty():
        return
    part = progress.done / progress.total if progress.total else 1.0
    bar = "#" * int(part * BAR)
    left = "" if progress.left is None else f", {progress.left:.0f} s left"
    stream.write(
        f"\r[{bar:<{BAR}}] {progress.done / 1e9:.1f} of {progress.total / 1e9:.1f} GB, "
        f"{progress.rate / 1e9:.2f} GB/s{left}\x1b[K"
    )
    stream.flush()


def sentence_of(report: Report) -> str:
    """The report in a line."""
    before, after = (
        "unknown" if resident is None else f"{resident / 1e9:.2f} GB"
        for resident in (report.resident_before, report.resident_after)
    )
    ends = {
        "done": "",
        "memory": "; stopped early, memory would not hold more",
        "stopped": "; stopped early",
    }
    return (
        f"{report.files} files of {report.total / 1e9:.2f} GB; in the page cache before: {before}, "
        f"after: {after}; read {report.read / 1e9:.2f} GB in {report.seconds:.1f} s "
        f"({report.rate / 1e9:.2f} GB/s){ends[report.ending]}"
    )
