"""The examples and the README's Python run as they stand. About 40 s."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, folder: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_solve_problem(tmp_path: Path) -> None:
    printed = run(str(ROOT / "examples" / "solve_problem.py"), folder=tmp_path)
    assert printed.startswith("answer: 23\n")
    assert printed.count("attempt ") == 8


def test_pause_at_tool_calls(tmp_path: Path) -> None:
    printed = run(str(ROOT / "examples" / "pause_at_tool_calls.py"), folder=tmp_path)
    assert printed.count("called Python: ['23']") >= 4
    assert len(re.findall(r"sequence \d+: .*\\boxed\{23\}", printed)) == 4
    assert printed.rstrip().endswith(" 0 recomputed")


def test_run_cells(tmp_path: Path) -> None:
    printed = run(str(ROOT / "examples" / "run_cells.py"), folder=tmp_path)
    statuses = re.findall(r"^\[(\w+), ", printed, re.MULTILINE)
    assert statuses == ["ok", "ok", "error", "timeout", "ok", "died", "ok"], printed
    assert "{2: 1, 5: 2, 101: 1}" in printed
    assert printed.rstrip().endswith("False")


def test_the_examples_are_all_tested() -> None:
    tested = {"solve_problem.py", "pause_at_tool_calls.py", "run_cells.py"}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == tested


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", readme_blocks("python"))
def test_the_readme_s_python(block: str, tmp_path: Path) -> None:
    run("-c", block, folder=tmp_path)


def test_the_readme_s_commands_exist() -> None:
    """Every `eightfold ...` command in the README's shell blocks is one that the parser knows."""
    commands = re.findall(r"\beightfold ((?:[a-z]+ ?)+)", "\n".join(readme_blocks("sh")))
    assert commands
    for command in {each.strip() for each in commands}:
        words = command.split()[:2] if command.startswith(("kaggle", "sandbox", "budget")) else []
        run("-m", "eightfold.solver.cli", *(words or command.split()[:1]), "--help", folder=ROOT)
