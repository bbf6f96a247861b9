"""The code that the notebook benchmark runs between the notebook's cells fits this package."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("polars")
FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_hooks_change_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from support.kaggle import notebook_hooks

    checks = """
from eightfold.engine import Engine
from eightfold.kernels.supported_gpus import BFLOAT16_MIN_CAPABILITY, is_supported
from eightfold.solver import kaggle
assert BFLOAT16_MIN_CAPABILITY == 99 and not is_supported(9.0)
assert kaggle.configure is _configure
pathlib.Path("full").touch()
try:
    Engine("no such folder")
except torch.OutOfMemoryError:
    pass
else:
    raise AssertionError("the engine found memory")
"""
    code = "".join(
        (
            notebook_hooks.FLOAT32,
            notebook_hooks.OUT_OF_MEMORY,
            notebook_hooks.SHORT_PROBLEMS,
            checks,
        )
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_session_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from support.kaggle import notebook_hooks

    from eightfold.solver import kaggle

    session = SimpleNamespace(solver=None, served=8, fallbacks=1, rebuilds=2)
    exec(notebook_hooks.PRINT_SESSION, {"kaggle": kaggle, "session": session})
    assert "session: 8 served 1 fallbacks 2 new" in capsys.readouterr().out
