"""A recorded run as an object, which a notebook shows as tables."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from eightfold.common.html_table import html_cells, html_table

from ..solver_config import SolverError
from .run_folder import read_settings
from .run_reader import read_run
from .run_scores import Run, summarize

RUN_FILES = ("problems.jsonl", "attempts.jsonl", "run.json", "summary.json")
"""The files that make up a run, which nothing made from it may replace."""


def check_output(path: Path) -> None:
    """Check that a file to be written is not part of a run.

    Raises:
        SolverError: it is one of `RUN_FILES`, beside the others.
    """
    if path.name in RUN_FILES and (path.parent / RUN_FILES[0]).exists():
        raise SolverError(f"{path} is part of a run and would be lost; give another --out.")


class RecordedRun:
    """The problems and attempts of a run that `evaluate` recorded.

    Args:
        folder: folder of the run.

    Attributes:
        folder: the folder.
        settings: what the run was started with; empty if the folder does not tell.
        records: the record of each problem, with those of its attempts.

    Raises:
        SolverError: the folder holds no run, or is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.records: Run = read_run(self.folder)
        stored = read_settings(self.folder)
        self.settings: dict[str, Any] = {} if stored is None else stored["settings"]

    @cached_property
    def summary(self) -> RunSummary:
        """The figures of the run."""
        return RunSummary(summarize(self.records, self.settings))

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{name} {one['value']:.3f}" for name, one in self.summary["scores"].items()
        )
        return f"RecordedRun({str(self.folder)!r}: {self.summary['problems']} problems; {scores})"

    def _repr_html_(self) -> str:
        """Return the summary and a table of the problems, for notebooks."""
        titles = ("problem", "answer", "truth", "votes", "tokens", "seconds", "faults")
        rows = []
        for problem, tries in self.records:
            votes = ", ".join(f"{a} &times; {n}" for a, n in problem.get("votes", {}).items())
            cells = (
                escape(str(problem["id"])),
                "none" if problem["answer"] is None else problem["answer"],
                "" if problem["truth"] is None else problem["truth"],
                votes,
                sum(one["tokens"] for one in tries),
                f"{problem['seconds']:.0f}",
                len(problem["faults"]),
            )
            rows.append(html_cells(cells))
        return f"{self.summary._repr_html_()}{html_table(titles, rows)}"


class RunSummary(dict[str, Any]):
    """The figures that `summarize` returns."""

    def _repr_html_(self) -> str:
        """Return a table of the scores and a line of totals, for notebooks."""
        rows = []
        for name, one in self["scores"].items():
            interval = f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
            cells = (escape(name), f"{100 * one['value']:.1f} %", interval, one["problems"])
            rows.append(html_cells(cells))
        totals = ", ".join(
            f"{self[name]} {name}" for name in ("problems", "attempts", "tokens", "calls", "errors")
        )
        table = html_table(("score", "value", "95 % interval", "problems"), rows)
        return f"{table}<p>{totals}</p>"
