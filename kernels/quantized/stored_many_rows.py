"""Many rows times a stored matrix: ``linear_many_rows.cu``, which expands weights on the way."""

import ctypes

import torch

from ..cuda.cuda_driver import TENSOR_MAP_SWIZZLE_NONE, CudaKernel, TensorMap, tensor_map
from ..cuda.nvrtc import is_hopper, load_kernel
from ..layers.linear_many_rows import (
    CLUSTER,
    COLUMNS,
    MIN_UTILIZATION,
    ROWS,
    SHARED_BYTES,
    THREADS,
    out_map,
    tile_count,
    tile_utilization,
    tile_width,
    x_map,
)
from ..triton_launch import multiprocessor_count
from .stored_matrix import StoredMatrix

FALLBACK = "weights of many rows are expanded to memory"


def stored_many_rows_fits(
    matrix: StoredMatrix, x: torch.Tensor, out: torch.Tensor, gated: bool
) -> bool:
    """Return whether the kernel is to compute a layer: it can, and its tiles are full.

    With 4 bits it took longer on an H200 than expanding them to memory (1,228 against 975 us for
    1,024 rows of Gemma-4-31B's gate and up).
    """
    n, inner = matrix.rows // (2 if gated else 1), matrix.columns
    return (
        is_hopper(x.device)
        and matrix.is_fp8
        and x.dtype == out.dtype == torch.bfloat16
        and matrix.scales.dtype in (torch.float32, torch.bfloat16)
        and n % (16 if gated else 8) == 0
        and inner % COLUMNS == 0
        and inner >= 2 * COLUMNS
        and (matrix.groups == 1 or matrix.columns_per_scale % 16 == 0)
        and all(t.data_ptr() % 16 == 0 for t in (matrix.codes, x, out))
        and tile_utilization(len(x), n, gated, multiprocessor_count(x.device)) >= MIN_UTILIZATION
    )


def kernel_defines(
    matrix: StoredMatrix, tile: int, gated: bool, silu: bool
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    return (
        ("TILE", tile),
        ("GATED", str(gated).lower()),
        ("SILU", str(gated and silu).lower()),
        ("STORED", 1),
        ("FP8", int(matrix.is_fp8)),
        ("ZEROS", int(matrix.zeros is not None)),
        ("FLOAT_SCALES", int(matrix.scales.dtype == torch.float32)),
        ("ROWS_OF_WEIGHTS", matrix.rows // (2 if gated else 1)),
        ("GROUPS_OF_ROW", matrix.groups),
        ("GROUP", matrix.columns_per_scale),
        ("SHARED_ROWS", matrix.rows_per_scale),
    )


def stored_many_rows(
    x: torch.Tensor, matrix: StoredMatrix, out: torch.Tensor, *, gated: bool, silu: bool, pdl: bool
) -> bool:
    """Launch the kernel; the arguments are checked by ``stored_product``.

    Returns:
        False if it could not be compiled.
    """
    (rows, inner), n = x.shape, out.shape[1]
    programs = multiprocessor_count(x.device)
    tile = tile_width(rows, n, gated, programs)
    kernel: CudaKernel | None = load_kernel(
        x.device, "linear_many_rows", kernel_defines(matrix, tile, gated, silu), SHARED_BYTES,
        FALLBACK,
    )  # fmt: skip
    if kernel is None:
        return False
    parts, tiles = 2 if gated else 1, tile_count(rows, n, gated, tile)
    maps = (x_map(x), _codes_map(matrix.codes, tile // parts, parts), out_map(out, tile // parts))
    integers = rows, -(-rows // ROWS), tiles, inner // COLUMNS
    zeros = 0 if matrix.zeros is None else matrix.zeros.data_ptr()
    pointers = (matrix.scales.data_ptr(), zeros)
    kernel.launch(
        CLUSTER * min(tiles, programs // CLUSTER),
        THREADS,
        (*maps, *map(ctypes.c_int, integers), *map(ctypes.c_void_p, pointers)),
        pdl,
    )
    return True


def _codes_map(codes: torch.Tensor, tile_columns: int, parts: int) -> TensorMap:
    """Describe the codes of a tile, rows by eights as of weights in bfloat16, in pairs of bytes."""
    width = codes.shape[1]
    n = codes.shape[0] // parts
    slot = COLUMNS if codes.dtype != torch.uint8 else COLUMNS // 2  # bytes of a row
    return tensor_map(
        codes.data_ptr(),
        sizes=(width // 2, 8, parts, n // 8),
        strides=(width, n * width, 8 * width),
        box=(slot // 2, 8, parts, tile_columns // 8),
        swizzle=TENSOR_MAP_SWIZZLE_NONE,
    )
