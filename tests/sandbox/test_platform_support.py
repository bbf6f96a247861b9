"""Elsewhere than on Linux one sentence says what to do, before anything is loaded (3 s)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.sandbox.platform_support import check_platform

MAC = "import os, sys; sys.platform = 'darwin'; del os.memfd_create, os.pidfd_open;"
WINDOWS = (
    "import os, sys; sys.platform = 'win32'; sys.modules.update(dict.fromkeys("
    "('fcntl', 'resource', 'pwd', 'grp', 'termios')));"
    "del os.memfd_create, os.pidfd_open, os.fork, os.sched_getaffinity;"
)


@pytest.mark.parametrize("platform", [MAC, WINDOWS], ids=["macOS", "Windows"])
@pytest.mark.parametrize(
    "words",
    [
        ["solve", "x"],
        ["evaluate", "p.csv", "--out", "r"],
        ["kaggle", "rehearse", "p.csv"],
        ["sandbox", "doctor"],
    ],
    ids=lambda words: words[0],
)
def test_commands_that_need_kernels_end_with_one_sentence(
    platform: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("id,problem\n1,x\n")
    command = " ".join(words[: 2 if words[0] in ("kaggle", "sandbox") else 1])
    code = f"{platform} from eightfold.solver.cli import main; code = main({words!r});"
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(f"eightfold {command}: The Python kernels need Linux")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("platform", [MAC, WINDOWS], ids=["macOS", "Windows"])
def test_help_and_replay_work_on_every_platform(platform: str, tmp_path: Path) -> None:
    code = f"{platform} from eightfold.solver.cli import main; main(['--help']);"
    code += "sys.exit(main(['replay', 'none']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "none holds no run" in done.stderr


@pytest.mark.parametrize("platform", [MAC, WINDOWS], ids=["macOS", "Windows"])
def test_the_pool_is_refused_with_the_same_sentence(platform: str) -> None:
    code = f"{platform} from eightfold.sandbox import KernelPool"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SandboxError: The Python kernels need Linux, and this is" in done.stderr


def test_linux_is_accepted() -> None:
    check_platform()
