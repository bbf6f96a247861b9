"""Products with stored matrices equal the references, for every format, number of rows and edge."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.cuda_emulation import emulate
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, HOPPER
from helpers.kernel_cases.stored_experts import ALL, make_matrix

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.quantized import stored_stream
from eightfold.kernels.quantized.stored_matrix import FP8, StoredMatrix
from eightfold.kernels.quantized.stored_product import (
    product_parts,
    stored_product,
    stored_product_reference,
)
from eightfold.kernels.quantized.stored_stream import (
    StreamConfig,
    kernel_defines,
    shared_bytes,
    stored_stream_fits,
)
from eightfold.kernels.quantized.triton_stored_rows import triton_expand


def rows_of_x(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(rows, columns, generator=generator).to(DEVICE, dtype)


def assert_near(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    error = float((found.double() - expected).norm() / expected.norm())
    assert error < (1e-5 if dtype == torch.float32 else 6e-3), error


@pytest.mark.parametrize("dtype", {DTYPE, torch.float32}, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_few_rows(name: str, dtype: torch.dtype) -> None:
    for rows, n, columns in ((1, 64, 128), (8, 96, 384)):
        matrix, x = make_matrix(name, n, columns), rows_of_x(rows, columns, dtype)
        out = stored_product(x, matrix, x.new_full((rows, n), torch.nan))
        assert_near(out, stored_product_reference(x, matrix), dtype)


@pytest.mark.parametrize(
    ("name", "rows", "n", "columns"),
    [
        ("fp8_rows", 3, 33, 100),  # no whole tiles, which only Triton's kernel takes
        ("int4_32", 5, 40, 96),
        ("fp8_block", 20, 256, 200),
        ("int4_128_zeros", 33, 48, 256),
        ("fp8_rows", 64, 64, 128),
        ("int4_32_zeros", 64, 32, 128),
    ],
)
def test_edges(name: str, rows: int, n: int, columns: int) -> None:
    matrix, x = make_matrix(name, n, columns), rows_of_x(rows, columns, DTYPE)
    out = stored_product(x, matrix, x.new_full((rows, n), torch.nan))
    assert_near(out, stored_product_reference(x, matrix), DTYPE)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("name", ["fp8_rows", "fp8_block", "int4_32", "int4_128_zeros"])
def test_gated_layers(name: str, activation: str) -> None:
    matrix, x = make_matrix(name, 256, 256), rows_of_x(8, 256, DTYPE) / 16
    out = stored_product(x, matrix, x.new_empty(8, 128), gated=True, activation=activation)
    assert_near(out, stored_product_reference(x, matrix, True, activation), DTYPE)


@pytest.mark.parametrize("name", ["fp8_rows", "int4_32"])
def test_biases(name: str) -> None:
    for rows in (4, 70):
        matrix, x = make_matrix(name, 64, 128), rows_of_x(rows, 128, DTYPE)
        bias = rows_of_x(1, 64, DTYPE)[0] * 10
        out = stored_product(x, matrix, x.new_empty(rows, 64), bias=bias)
        expected = stored_product_reference(x, matrix) + bias.double()
        assert_near(out, expected, DTYPE)


@pytest.mark.parametrize("name", ["fp8_block", "int4_64_zeros"])
@pytest.mark.parametrize("gated", [False, True])
def test_many_rows(name: str, gated: bool) -> None:
    matrix, x = make_matrix(name, 256, 192), rows_of_x(70, 192, DTYPE) / 16
    out = x.new_empty(70, 128 if gated else 256)
    stored_product(x, matrix, out, gated=gated)
    assert_near(out, stored_product_reference(x, matrix, gated), DTYPE)


@pytest.mark.parametrize("name", ["fp8_block", "int4_32_zeros"])
@pytest.mark.parametrize("gated", [False, True])
def test_tiles_of_many_rows(name: str, gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.kernels.quantized.stored_product.TILED_ROWS", 200)
    matrix, x = make_matrix(name, 256, 192), rows_of_x(140, 192, DTYPE) / 16
    out = x.new_full((140, 128 if gated else 256), torch.nan)
    stored_product(x, matrix, out, gated=gated)
    assert_near(out, stored_product_reference(x, matrix, gated), DTYPE)


@pytest.mark.parametrize("name", ALL)
def test_expansion(name: str) -> None:
    matrix = make_matrix(name, 130, 320 if "128" not in name else 256)
    for dtype in {torch.float32, torch.float16, DTYPE}:
        out = torch.empty(matrix.rows, matrix.columns, dtype=dtype, device=DEVICE)
        assert torch.equal(triton_expand(matrix, out), matrix.expand(dtype))


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("fp8_rows", 1, 8),
        ("fp8_rows", 53, 101),  # neighbors in memory that do not share a row, nor a scale
        ("fp8_tensor", 70, 204),
        ("fp8_block", 257, 200),
        ("int4_rows", 7, 2),
        ("int4_rows_zeros", 131, 130),
        ("int4_32", 300, 88),
        ("int4_64_zeros", 171, 96),
    ],
)
def test_expansion_of_odd_sizes_stays_within_the_matrix(name: str, rows: int, columns: int) -> None:
    matrix = make_matrix(name, rows, columns)
    memory = torch.full((rows * columns + 4096,), torch.nan, dtype=DTYPE, device=DEVICE)
    out = memory[: rows * columns].view(rows, columns)
    assert torch.equal(triton_expand(matrix, out), matrix.expand(DTYPE))
    assert bool(memory[rows * columns :].isnan().all())


def test_expansion_in_runs_that_scales_divide() -> None:
    whole = make_matrix("int4_32_zeros", 90, 96)
    # Groups of 12 columns, of which no 8 in a row lie in one; and codes at an odd address.
    scales, zeros = (values.repeat(1, 3)[:, :8] for values in (whole.scales, whole.zeros))
    bytes_of_codes = torch.zeros(whole.codes.numel() + 1, dtype=torch.uint8, device=DEVICE)
    codes = bytes_of_codes[1:].view(90, 48).copy_(whole.codes)
    matrix = StoredMatrix(codes, scales.contiguous(), zeros.contiguous(), columns_per_scale=12)
    out = torch.empty(90, 96, dtype=DTYPE, device=DEVICE)
    assert torch.equal(triton_expand(matrix, out), matrix.expand(DTYPE))


def test_every_fp8_value_is_exact() -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(2)[None].view(FP8)
    codes = torch.where(codes.float().isnan(), 0, codes.float()).to(FP8).to(DEVICE)
    matrix = StoredMatrix(codes, torch.ones(1, 1, device=DEVICE))
    out = torch.empty(1, 512, device=DEVICE)
    assert torch.equal(triton_expand(matrix, out), codes.float())


@pytest.mark.parametrize("name", ["fp8_rows", "int4_32"])
def test_a_row_does_not_depend_on_its_neighbors(name: str) -> None:
    matrix, x = make_matrix(name, 64, 256), rows_of_x(16, 256, DTYPE)
    whole = stored_product(x, matrix, x.new_empty(16, 64))
    for rows in (1, 5, 8, 9):
        out = stored_product(x[:rows].contiguous(), matrix, x.new_empty(rows, 64))
        assert torch.equal(out, whole[:rows])


def test_what_does_not_fit_is_refused() -> None:
    matrix, x = make_matrix("fp8_rows", 64, 128), rows_of_x(2, 128, DTYPE)
    with pytest.raises(ValueError, match="x has 100 columns, not 128"):
        stored_product(x[:, :100].contiguous(), matrix, x.new_empty(2, 64))
    with pytest.raises(ValueError, match="out has shape"):
        stored_product(x, matrix, x.new_empty(2, 32))
    with pytest.raises(ValueError, match="bias must have 64"):
        stored_product(x, matrix, x.new_empty(2, 64), bias=x[0])
    big = x.new_empty(65, 128)
    with pytest.raises(ValueError, match="configuration is for at most 64 rows"):
        stored_product(big, matrix, x.new_empty(65, 64), config=StreamConfig(units=1, slots=2))


@pytest.mark.parametrize("name", ["fp8_rows", "int4_32"])
def test_parts_add_up_on_every_device(name: str) -> None:
    matrix, x = make_matrix(name, 64, 256), rows_of_x(8, 256, DTYPE)
    assert product_parts(matrix, 65, DTYPE) == 1
    parts = torch.full((3, 8, 64), torch.nan, device=DEVICE)
    stored_product(x, matrix, parts)
    assert_near(parts.sum(0), stored_product_reference(x, matrix), DTYPE)


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.cuda
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [1, 8, 11, 30, 64])
def test_the_cuda_kernel(name: str, rows: int) -> None:
    matrix, x = make_matrix(name, 512, 1280), rows_of_x(rows, 1280, torch.bfloat16)
    for gated in (False, True):
        assert stored_stream_fits(matrix, x.dtype)
        out = x.new_full((rows, 256 if gated else 512), torch.nan)
        scaled = x / 64 if gated else x
        stored_product(scaled, matrix, out, gated=gated)
        assert_near(out, stored_product_reference(scaled, matrix, gated), torch.bfloat16)
    parts = torch.full((3, rows, 512), torch.nan, device=DEVICE)
    stored_product(x, matrix, parts)
    assert_near(parts.sum(0), stored_product_reference(x, matrix), torch.bfloat16)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("name", "rows", "gated", "programs", "config"),
    [
        ("fp8_tensor", 3, False, 1, StreamConfig(units=2, slots=3)),
        ("fp8_block", 8, True, 3, StreamConfig(units=2, slots=3)),
        ("int4_128_zeros", 8, False, 2, StreamConfig(units=2, slots=2, splits=2)),
        ("int4_32_zeros", 11, True, 2, StreamConfig(units=2, slots=3)),
        ("fp8_rows", 8, False, 6, StreamConfig(units=2, slots=2, depth=2, splits=3)),
        ("int4_32", 8, False, 2, StreamConfig(units=2, slots=2, depth=2)),
        ("int4_64", 8, True, 1, StreamConfig(units=1, slots=3)),
        ("int4_64_zeros", 17, False, 1, StreamConfig(units=2, slots=2)),
        ("int4_32_zeros", 3, False, 1, StreamConfig(units=2, slots=2)),
        ("int4_rows_zeros", 8, False, 1, StreamConfig(units=1, slots=3)),
    ],
)
def test_the_cuda_kernel_in_emulation(
    name: str, rows: int, gated: bool, programs: int, config: StreamConfig, tmp_path: Path
) -> None:
    outputs = 128 if name == "fp8_block" else 48
    columns = 640 if name.startswith("fp8") else 768
    matrix = make_matrix(name, outputs * (2 if gated else 1), columns)
    matrix = replace(matrix, codes=matrix.codes.cpu(), scales=matrix.scales.cpu())
    if matrix.zeros is not None:
        matrix = replace(matrix, zeros=matrix.zeros.cpu())
    if (name, gated) in (("int4_64", True), ("int4_32_zeros", False)):
        # As of fp16 scales, which are no bfloat16.
        matrix = replace(matrix, scales=matrix.scales.float() * 1.01)
    x = rows_of_x(rows, columns, torch.bfloat16).cpu() / (16 if gated else 1)
    bias = None if gated or config.splits > 1 else torch.randn(outputs).bfloat16()
    split = config.splits > 1
    out = torch.full((config.splits, rows, outputs), torch.nan)
    out = out if split else out[0].bfloat16()
    emulate(x, matrix, out, config, tmp_path, gated=gated, bias=bias, programs=programs)
    expected = stored_product_reference(x, matrix, gated, "gelu_tanh")
    if bias is not None:
        expected += bias.double()
    assert_near(out.sum(0) if split else out, expected, torch.bfloat16)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_every_fp8_code_is_exact_in_emulation(tmp_path: Path) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(FP8).float().nan_to_num(0).view(32, 8)
    columns = [0, 1, 2, 3, 68, 69, 70, 71]  # all bytes of a word; rows of x pick one each
    codes, x = torch.zeros(32, 256, dtype=FP8), torch.zeros(8, 256).bfloat16()
    codes[:, columns], x[range(8), columns] = values.to(FP8), 1
    matrix, out = StoredMatrix(codes, torch.ones(1, 1), None, 32), torch.empty(8, 32).bfloat16()
    config = StreamConfig(units=2, slots=2)
    emulate(x, matrix, out, config, tmp_path, gated=False, bias=None, programs=1)
    assert torch.equal(out.float(), values.T)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("name", "rows", "gated"),
    [("fp8_rows", 8, False), ("fp8_block", 16, True), ("int4_32_zeros", 8, True),
     ("int4_128_zeros", 8, False), ("fp8_rows", 64, True)],
)  # fmt: skip
def test_the_cuda_kernel_compiles_without_spills(
    name: str, rows: int, gated: bool, tmp_path: Path
) -> None:
    matrix = make_matrix(name, 512, 1280)
    config = StreamConfig(units=8, slots=3)
    assert shared_bytes(matrix, rows, config) <= stored_stream.SHARED_BYTES
    defines = kernel_defines(matrix, rows, config, gated=gated, silu=True, has_bias=not gated)
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v", "-I", str(nvrtc.SOURCE_FOLDER)]
    command += [f"-D{macro}={value}" for macro, value in defines]
    command += ["-o", str(tmp_path / "kernel.cubin")]
    command += [str(nvrtc.SOURCE_FOLDER / stored_stream.SOURCE)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in run.stderr
