"""The process of a command ends with the command's exit code, whatever was interrupted (2 s)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
sys.path[:] = {path!r}
import time
from eightfold.solver.cli import program

class Dropping:
    def __del__(self):
        raise KeyboardInterrupt

def main():
    try:
        {action}
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130

program.main = main
program.run()
"""


def run(folder: Path, program: str, action: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a module, as `python -m eightfold.solver.cli` is run."""
    (folder / "module.py").write_text(program.format(path=sys.path, action=action))
    command = [sys.executable, "-m", "module"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        ("pass", 0, ""),
        # Python itself would end by SIGINT, since this interrupt has left code given as text.
        ("exec('raise KeyboardInterrupt')", 130, "interrupted\n"),
        # Python drops this one.
        ("Dropping(); time.sleep(200)", 130, "interrupted\n"),
        ("sys.stdout.write('kept'); return 3", 3, ""),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    tmp_path: Path, action: str, code: int, said: str
) -> None:
    done = run(tmp_path, PROGRAM, action)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout == ("kept" if "kept" in action else "")


def test_what_nobody_can_catch_is_reported_and_a_defect_has_its_traceback(tmp_path: Path) -> None:
    program = PROGRAM.replace("raise KeyboardInterrupt\n", "raise ValueError('dropped')\n")
    done = run(tmp_path, program, "Dropping(); return 1 // 0")
    assert done.returncode == 1
    assert "ValueError: dropped" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")
