"""The command lines of the GPU benchmarks refuse wrong options in one sentence, on any machine."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("decode", ["--contexts", "abc"], "'abc' is not a whole number"),
        ("decode", ["--contexts", "1000,,7000"], "'' is not a whole number"),
        ("decode", ["--batch", "0"], "'0' is not a whole number"),
        (
            *("decode", ["--batch", "8", "--chunk", "4"]),
            "max_step_tokens (4) must be at least max_running (8)",
        ),
        ("decode", ["--batch", "8,0"], "'0' is not a whole number"),
        ("decode", ["--path", "eager"], "invalid choice: 'eager'"),
        ("decode", ["--contexts", "50000"], "need --max-context 50112"),
        ("decode", ["--contexts", "5", "--max-context", "4000"], "need --max-context 8304"),
        ("decode", ["--memory-fraction", "2"], "memory_fraction must be in (0, 1]"),
        ("speculation", ["--contexts", "a"], "'a' is not a list of whole numbers"),
        ("speculation", ["--traces", "/no/such"], "/no/such holds no tokens.npz"),
        ("speculation", ["--batch", "0"], "--tokens and --batch must be at least 1"),
        ("kernel_times", ["--only", "launch,nonsense"], "--only takes launch, linear"),
        ("kernel_times", ["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_wrong_options_are_refused(
    program: str, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", ["benchmark", *options])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(program).main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_every_kind_of_job_has_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import kernel_times
    from support.kernel_jobs import job_list

    for kind in job_list.KINDS:
        jobs = job_list.list_jobs([kind])
        assert jobs
        assert {job[0] for job in jobs} <= kernel_times.JOBS.keys()
