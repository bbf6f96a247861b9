"""Every Triton kernel compiles for Hopper; no GPU is needed. About 15 seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.kernel_cases.kernel_devices import CUDA

BUILDS = Path(__file__).parents[1] / "helpers" / "kernel_cases" / "triton_builds.py"


@pytest.mark.skipif(CUDA, reason="on a GPU the other tests compile the kernels")
def test_triton_kernels_compile_for_hopper() -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BUILDS)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("built") > 20
