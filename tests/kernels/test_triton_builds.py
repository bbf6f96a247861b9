"""Every Triton kernel compiles within each GPU's limits; no GPU is needed. About 90 seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.kernel_cases.kernel_devices import CUDA

BUILDS = Path(__file__).parents[1] / "helpers" / "kernel_cases" / "triton_builds.py"


@pytest.mark.timeout(600)
@pytest.mark.skipif(CUDA, reason="on a GPU the other tests compile the kernels")
def test_triton_kernels_compile_for_every_gpu() -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(BUILDS), *capabilities],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for capabilities in (("90", "100", "120"), ("80", "86", "89"))
    ]  # fmt: skip
    for run, least in zip(runs, (120, 80), strict=True):
        said, _ = run.communicate(timeout=600)
        assert run.returncode == 0, said
        assert said.count("built") > least
