"""Record a real `eightfold solve` as an SVG picture of a terminal, for the README.

    python docs/record_solve.py docs/solve.svg

Runs the command in a process of its own and draws what it printed with rich. The picture refers to
no font or file from elsewhere.
"""

import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PROBLEM = "How many prime numbers are below 100?"
WIDTH = 96


def record(problem: str) -> str:
    """Return what `eightfold solve --show` prints, progress included.

    Raises:
        RuntimeError: the command failed.
    """
    command = [sys.executable, "-m", "eightfold.solver.cli", "solve", "--show", problem]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(done.stdout)
    return done.stdout


def draw(problem: str, printed: str) -> str:
    """Return the SVG of a terminal that shows the command and its output."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), (f"eightfold solve --show '{problem}'", "bold")))
    console.print(Text(printed.rstrip()))
    return recorded_svg(console, "solve")


def recorded_svg(console: Console, unique_id: str) -> str:
    """Return what a console recorded as the SVG of a terminal, without fonts from elsewhere.

    Args:
        console: a console that records.
        unique_id: prefix of the names in the picture.
    """
    svg = console.export_svg(title="eightfold", theme=MONOKAI, unique_id=unique_id)
    # rich loads its font from a server; the reader's own monospaced font does as well.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Record `eightfold solve` as an SVG picture.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--problem", default=PROBLEM)
    options = parser.parse_args()
    options.out.write_text(draw(options.problem, record(options.problem)), encoding="utf-8")


if __name__ == "__main__":
    main()
