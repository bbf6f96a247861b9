"""`linear_many_rows.cu` expands a stored matrix to exactly its values, bit for bit."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.expansion_emulation import expand, tile_rows
from helpers.kernel_cases.stored_experts import make_matrix

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.layers.linear_many_rows import CLUSTER, tile_widths
from eightfold.kernels.quantized.stored_many_rows import kernel_defines
from eightfold.kernels.quantized.stored_matrix import StoredMatrix


def matrix_on_cpu(name: str, rows: int, columns: int, float_scales: bool) -> StoredMatrix:
    matrix = make_matrix(name, rows, columns)
    scales = matrix.scales.float() * 1.01 if float_scales else matrix.scales.bfloat16()
    zeros = None if matrix.zeros is None else matrix.zeros.cpu()
    return replace(matrix, codes=matrix.codes.cpu(), scales=scales.cpu(), zeros=zeros)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("name", "gated", "tile", "float_scales"),
    [
        ("fp8_rows", True, 192, True),
        ("fp8_block", True, 192, False),
        ("fp8_block", True, 176, True),
        ("fp8_block", False, 168, False),
        ("fp8_tensor", False, 128, False),
        ("int4_32_zeros", True, 176, False),
        ("int4_64", False, 160, True),
        ("int4_rows", False, 168, False),
    ],
)
def test_slots_hold_the_values(
    name: str, gated: bool, tile: int, float_scales: bool, tmp_path: Path
) -> None:
    n, columns, tiles = 208 if gated else 280, 320, 2
    matrix = matrix_on_cpu(name, n * (2 if gated else 1), columns, float_scales)
    unscaled = replace(matrix, scales=torch.ones_like(matrix.scales))
    expected = (matrix if matrix.groups > 1 else unscaled).expand(torch.bfloat16)
    for rank in range(CLUSTER):
        slots = expand(matrix, tile, rank, tiles, tmp_path, gated=gated)
        for number in range(tiles):
            rows = tile_rows(tile, number, rank, n, gated=gated)
            found = slots[number].transpose(0, 1).flatten(1)[rows >= 0]
            wanted = expected[rows[rows >= 0]]
            assert torch.equal(found.view(torch.int16), wanted.view(torch.int16))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", ["fp8_rows", "fp8_block"])
def test_the_kernel_compiles(name: str, gated: bool, tmp_path: Path) -> None:
    matrix = make_matrix(name, 512, 256)
    defines = kernel_defines(matrix, tile_widths(gated)[0], gated, silu=True)
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v"]
    command += [f"-D{macro}={value}" for macro, value in defines]
    command += ["-o", str(tmp_path / "kernel.cubin")]
    command += [str(nvrtc.SOURCE_FOLDER / "linear_many_rows.cu")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert "serialized" not in run.stderr, "matrix products wait for one another"
    if name == "fp8_rows" or not gated:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in run.stderr
