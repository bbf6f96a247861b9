"""Kernels build for Hopper, where no GPU is needed for that. About 15 seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.kernels.attention.hopper import hopper_one_copy
from eightfold.kernels.cuda import nvrtc

BUILDS = Path(__file__).parents[1] / "helpers" / "kernel_cases" / "hopper_builds.py"


@pytest.mark.skipif(CUDA, reason="there the other tests build them")
def test_triton_kernels_build_for_hopper() -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BUILDS)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("built") > 20


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_one_copy_attention_builds_without_spills(tmp_path: Path) -> None:
    folder = nvrtc.SOURCE_FOLDER
    source = tmp_path / "attention.cu"
    source.write_text("".join((folder / name).read_text() for name in hopper_one_copy.SOURCES))
    defines = ["-DHQ=32", "-DHK=4", "-DPS=64", "-DKEY_WEIGHT=float"]
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v", *defines, "-o"]
    command += [str(tmp_path / "attention.cubin"), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in run.stderr
