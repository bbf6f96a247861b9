"""Few rows times a stored matrix by the CUDA kernel ``stored_few_rows.cu``, for Hopper."""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.nvrtc import is_hopper, load_kernel
from .stored_matrix import StoredMatrix

SOURCE = "../quantized/stored_few_rows.cu"
FALLBACK = "Triton's kernel multiplies few rows by stored weights"
MAX_ROWS = 64
LANE_COLUMNS = {True: 16, False: 32}
"""Columns in the 16 bytes of a lane, by whether they are FP8."""

SCALES_OF_ROWS, SCALES_OF_CHUNKS, SCALES_OF_LANES = range(3)


@dataclass(frozen=True, slots=True)
class StoredRowsConfig:
    """Launch configuration of the kernel.

    Sums are added in an order that depends on ``warps``, ``unroll`` and ``splits`` alone.

    Attributes:
        warps: warps of a program, among which a row's columns are divided.
        weight_tiles: groups of 16 weight rows in a program.
        unroll: chunks of 64 bytes of each row that a warp loads in a step.
        blocks: resident programs of a multiprocessor for which registers are allocated.
        splits: parts of a row's columns, each for a program.
        ahead: bytes of each weight row, a multiple of 16, that a program fetches into L2 while it
            waits for ``x``.
    """

    warps: int = 4
    weight_tiles: int = 2
    unroll: int = 1
    blocks: int = 4
    splits: int = 1
    ahead: int = 0


def stored_rows_config(matrix: StoredMatrix, rows: int, gated: bool) -> StoredRowsConfig:
    """Return the configuration for a matrix and a number of rows.

    The order in which sums are added is the same for all numbers of rows.
    """
    outputs = matrix.rows // (2 if gated else 1)
    tiles = 1 if outputs % (16 if gated else 32) else 2
    if rows > 16:
        return StoredRowsConfig(weight_tiles=tiles, blocks=2)
    return StoredRowsConfig(weight_tiles=tiles, blocks=5 if matrix.is_fp8 and rows <= 8 else 4)


def scale_place(matrix: StoredMatrix) -> int | None:
    """Return where the kernel applies a matrix's scales; ``None`` if it cannot."""
    if matrix.groups == 1:
        return SCALES_OF_ROWS
    lane = LANE_COLUMNS[matrix.is_fp8]
    if matrix.columns_per_scale % (4 * lane) == 0:
        return SCALES_OF_CHUNKS
    if not matrix.is_fp8 and matrix.columns_per_scale % lane == 0:
        return SCALES_OF_LANES
    return None


def kernel_defines(
    matrix: StoredMatrix,
    rows: int,
    config: StoredRowsConfig,
    *,
    gated: bool,
    silu: bool,
    has_bias: bool,
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    tiles = next(tiles for tiles in (1, 2, 4, 8) if rows <= 8 * tiles)
    return (
        ("FP8", int(matrix.is_fp8)),
        ("GATED", int(gated)),
        ("ZEROS", int(matrix.zeros is not None)),
        ("HAS_BIAS", int(has_bias)),
        ("FLOAT_SCALES", int(matrix.scales.dtype == torch.float32)),
        ("SCALES", scale_place(matrix)),
        ("SILU", int(silu)),
        ("INPUTS", matrix.columns),
        ("OUTPUTS", matrix.rows // (2 if gated else 1)),
        ("GROUP", matrix.columns_per_scale),
        ("SHARED_ROWS", matrix.rows_per_scale),
        ("WARPS", config.warps),
        ("TILES_M", config.weight_tiles),
        ("TILES_N", tiles),
        ("UNROLL", config.unroll),
        ("SPLITS", config.splits),
        ("BLOCKS", config.blocks),
        ("AHEAD", config.ahead),
    )


def stored_few_rows_fits(
    matrix: StoredMatrix, x_dtype: torch.dtype, gated: bool, config: StoredRowsConfig
) -> bool:
    """Return whether the kernel supports a matrix, on its device and for rows of this type."""
    outputs = matrix.rows // (2 if gated else 1)
    return (
        is_hopper(matrix.codes.device)
        and x_dtype == torch.bfloat16
        and matrix.scales.dtype in (torch.float32, torch.bfloat16)
        and scale_place(matrix) is not None
        and matrix.columns % LANE_COLUMNS[matrix.is_fp8] == 0
        and outputs % ((8 if gated else 16) * config.weight_tiles) == 0
    )


def stored_few_rows(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    config: StoredRowsConfig,
    *,
    gated: bool,
    silu: bool,
    bias: torch.Tensor | None,
    pdl: bool,
) -> bool:
    """Launch the kernel; the arguments are checked by ``stored_product``.

    Returns:
        False if it could not be compiled.
    """
    rows = x.shape[0]
    defines = kernel_defines(
        matrix, rows, config, gated=gated, silu=silu, has_bias=bias is not None
    )
    kernel = load_kernel(x.device, "stored_few_rows", defines, 0, FALLBACK, SOURCE)
    if kernel is None:
        return False
    outputs = matrix.rows // (2 if gated else 1)
    columns = (8 if gated else 16) * config.weight_tiles
    tensors = (x, matrix.codes, matrix.scales, matrix.zeros, bias, out)
    pointers = [ctypes.c_void_p(0 if t is None else t.data_ptr()) for t in tensors]
    grid = outputs // columns * config.splits
    kernel.launch(grid, 32 * config.warps, [*pointers, ctypes.c_int(rows)], pdl)
    return True
