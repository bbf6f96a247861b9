"""Record real pictures of the live view and of a report, for the documents.

    python docs/record_pictures.py docs/pictures

Solves one problem and evaluates a few with the bundled model. `live.svg` is what a terminal of
80 columns shows while the problem is being solved; `report.png` is the page of the run, in a
headless Chromium. The pictures refer to no font or file from elsewhere.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from record_solve import PROBLEM, recorded_svg
from rich.console import Console
from rich.text import Text

from eightfold.demo.problems import take
from eightfold.solver import Solver, SolverConfig
from eightfold.solver.attempts.problem_progress import Progress
from eightfold.solver.cli import main as eightfold
from eightfold.solver.display.live_table import problem_view

COLUMNS, LINES = 80, 24
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def record_progress(problem: str) -> list[Progress]:
    """Return the snapshots of a problem that is solved now."""
    snapshots: list[Progress] = []
    with Solver(SolverConfig()) as solver:
        solver.solve(problem, on_progress=snapshots.append, interval=0.05)
    return snapshots


def richest(snapshots: Sequence[Progress]) -> Progress:
    """Return the snapshot whose attempts are in the most states, the latest of those.

    One in the middle of the end, when a consensus cancels attempts, shows nothing of interest.
    """
    return max(
        snapshots, key=lambda one: ("gave up" not in one.states, len(one.states), one.seconds)
    )


def draw_live_view(snapshot: Progress) -> str:
    """Return the SVG of a terminal that shows a snapshot."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "green"), (f"eightfold solve '{PROBLEM}'", "bold")))
    console.print(problem_view(snapshot, COLUMNS - 1, LINES))
    return recorded_svg(console, "live")


def record_report(out: Path) -> None:
    """Evaluate a few problems and write a picture of the report.

    Raises:
        RuntimeError: no browser is installed, or a command failed.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise RuntimeError("The picture of the report needs Chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = folder / "problems.jsonl"
        rows = [
            {"id": one.id, "problem": one.problem, "answer": one.answer}
            for split in ("held_out", "held_out_phrasing")
            for one in take(split, 8, seed=5)
        ]
        problems.write_text("\n".join(map(json.dumps, rows)))
        run = folder / "run"
        if eightfold(["evaluate", str(problems), "--out", str(run), "--parallel", "2"]) or (
            eightfold(["report", str(run)])
        ):
            raise RuntimeError("The evaluation or the report failed.")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1280,1000"]
        command += ["--virtual-time-budget=5000", f"--screenshot={out.resolve()}"]
        page = (run / "report.html").resolve().as_uri()
        subprocess.run([*command, page], check=True, capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    live = draw_live_view(richest(record_progress(PROBLEM)))
    (folder / "live.svg").write_text(live, encoding="utf-8")
    record_report(folder / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
