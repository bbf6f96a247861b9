"""The GPU to use is found with nvidia-smi and, if it does not run our kernels, by a trial. 5 s."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from eightfold.solver.kaggle import machine_detection
from eightfold.solver.kaggle.machine_detection import best_gpu, detect_machine
from eightfold.solver.kaggle.machine_sizing import GB


@pytest.mark.parametrize(
    ("listing", "mebibytes", "capability"),
    [
        ("81559, 9.0\n", 81559, 9.0),
        ("15360, 7.5\n15360, 7.5\n", 15360, 7.5),  # T4
        ("23034, 8.9\n", 23034, 8.9),  # L4
        ("16384, 6.0\n", 16384, 6.0),  # P100
        ("32607, 12.0\n81559, 9.0\n97887, 13.0\n", 81559, 9.0),
        ("32607, 12.0\n143771, 9.0\n183359, 10.0\n", 183359, 10.0),
        ("", 0, 0.0),
    ],
)
def test_a_gpu_that_runs_our_kernels_is_preferred(
    listing: str, mebibytes: int, capability: float
) -> None:
    assert best_gpu(listing) == (mebibytes << 20, capability)


def test_a_gpu_of_unknown_size_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert best_gpu("[N/A], 9.0\n81559, 9.0\n") == (81559 << 20, 9.0)
    assert "'[N/A], 9.0'" in capsys.readouterr().err
    assert best_gpu("No devices were found\n") == (0, 0.0)


@pytest.mark.parametrize("capability", [7.5, 13.0])
@pytest.mark.parametrize("trial", [None, True])
def test_pytorch_is_tried_on_a_gpu_that_does_not_run_our_kernels(
    capability: float,
    trial: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 15360, {capability}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = torch.cuda.is_available()
    if trial:
        monkeypatch.setattr(machine_detection, "torch_runs", lambda: True)
        runs = True
    found = detect_machine()
    assert (found.gpu, found.capability) == ((15360 << 20, capability) if runs else (0, 0.0))
    said = capsys.readouterr().err
    assert ("the GPU is used through plain PyTorch" if runs else "passed over: a GPU of") in said
    assert f"compute capability {capability:g}" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_machine().gpu == 0


def test_this_machine() -> None:
    machine = detect_machine()
    assert machine.cpus >= 1
    assert machine.ram > GB // 2
