"""The command lines of the GPU benchmarks: what cannot be is refused in a sentence, anywhere."""

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--contexts", "abc"], "'abc' is not a whole number"),
        (["--contexts", "1000,,7000"], "'' is not a whole number"),
        (["--batch", "0"], "'0' is not a whole number"),
        (["--batch", "8", "--chunk", "4"], "max_step_tokens (4) must be at least max_running (8)"),
        (["--contexts", "50000"], "need --max-context 50112"),
        (["--contexts", "5", "--max-context", "4000"], "need --max-context 8304"),
        (["--memory-fraction", "2"], "memory_fraction must be in (0, 1]"),
    ],
)
def test_decode(
    options: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import decode

    refused(decode.main, options, told, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--only", "launch,nonsense"], "--only takes launch, linear"),
        (["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_kernel_times(
    options: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import kernel_times

    refused(kernel_times.main, options, told, monkeypatch, capsys)


def test_every_kind_of_job_has_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import kernel_jobs

    assert all(kernel_jobs.jobs([kind]) for kind in kernel_jobs.KINDS)


def refused(main: Any, options: list[str], told: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
