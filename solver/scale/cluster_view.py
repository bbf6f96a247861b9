"""The state of a cluster's workers, in one line and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eightfold.common.counted_noun import counted

from .crew_messages import CrewReport, WorkerState

if TYPE_CHECKING:
    from rich.text import Text

SHOWN_WORKERS = 8
"""Workers whose speed the one line names; of more, the slowest and the fastest."""

LINES_AROUND = 4
"""Lines of the table beside its rows: status, titles, hidden rows, and the cursor's line."""


def cluster_line(report: CrewReport, heads_lost: int = 0) -> str:
    """Return how many workers there are, their speeds, and how many were lost and are back.

    Args:
        report: the state of the crew.
        heads_lost: number of times that the whole cluster was lost.
    """
    starting = sum(worker.state == "starting" for worker in report.workers)
    text = counted(len(report.workers), "worker")
    details = [f"{starting} starting"] if starting else []
    if report.lost:
        details.append(f"{report.lost} lost, {report.back} back")
    if heads_lost:
        details.append(f"cluster lost {counted(heads_lost, 'time')}")
    speeds = [worker.speed for worker in report.workers if worker.speed]
    if speeds and len(report.workers) <= SHOWN_WORKERS:
        details.append(" + ".join(f"{speed:.0f}" for speed in speeds) + " tokens/s")
    elif speeds:
        details.append(f"{min(speeds):.0f} to {max(speeds):.0f} tokens/s each")
    return f"{text} ({', '.join(details)})" if details else text


def cluster_view(status: str, report: CrewReport, width: int, height: int) -> Text:
    """Return the state of a run and, below it, a row for each worker.

    Args:
        status: the run in one line.
        report: the state of the crew.
        width: columns of the terminal.
        height: lines of the terminal; the workers that do not fit are counted instead.
    """
    from rich.text import Text

    shown = _that_fit(report.workers, max(1, height - LINES_AROUND))
    rows = [
        status,
        f"{'worker':>6}  {'node':<15}  {'state':<8}  {'solved':>6}  {'/s':>6}  problems",
    ]
    rows += [_row(worker) for worker in shown]
    if len(shown) < len(report.workers):
        rows.append(f"and {counted(len(report.workers) - len(shown), 'worker')} more")
    return Text("\n".join(" ".join(row.splitlines())[:width] for row in rows), no_wrap=True)


def _that_fit(workers: Sequence[WorkerState], rows: int) -> Sequence[WorkerState]:
    return workers if len(workers) <= rows else workers[: max(1, rows - 1)]


def _row(worker: WorkerState) -> str:
    return (
        f"{worker.number:>6}  {worker.node:<15}  {worker.state:<8}  {worker.solved:>6}  "
        f"{worker.speed:>6.0f}  {', '.join(worker.problems)}"
    )
