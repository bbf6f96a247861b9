"""The cold start benchmark refuses wrong options before it writes anything."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "coldstart.py"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gb", "-1"], "--gb must be more than 0, not -1.0"),
        (["--gb", "nan"], "--gb must be more than 0, not nan"),
        (["--seconds", "inf"], "--seconds must be more than 0, not inf"),
        (["--folder", "."], ". exists; name a folder that may be created and removed"),
        pytest.param(["--h100"], "finds no GPU here; use --device cpu", marks=no_gpu),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: list[str], words: str) -> None:
    command = [sys.executable, str(PROGRAM), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].endswith(words)
    assert list(tmp_path.iterdir()) == []
