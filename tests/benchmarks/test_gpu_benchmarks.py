"""The command lines of the GPU benchmarks: what cannot be is refused in a sentence, anywhere."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("program", "options", "told"),
    [
        ("decode", ["--contexts", "abc"], "'abc' is not a whole number"),
        ("decode", ["--contexts", "1000,,7000"], "'' is not a whole number"),
        ("decode", ["--batch", "0"], "'0' is not a whole number"),
        (
            *("decode", ["--batch", "8", "--chunk", "4"]),
            "max_step_tokens (4) must be at least max_running (8)",
        ),
        ("decode", ["--contexts", "50000"], "need --max-context 50112"),
        ("decode", ["--contexts", "5", "--max-context", "4000"], "need --max-context 8304"),
        ("decode", ["--memory-fraction", "2"], "memory_fraction must be in (0, 1]"),
        ("kernel_times", ["--only", "launch,nonsense"], "--only takes launch, linear"),
        ("kernel_times", ["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(
    program: str, options: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", ["benchmark", *options])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(program).main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_every_kind_of_job_has_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from support import layer_jobs

    assert all(layer_jobs.jobs([kind]) for kind in layer_jobs.KINDS)
