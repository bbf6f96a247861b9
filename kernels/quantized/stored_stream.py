"""Few rows times a stored matrix by the CUDA kernel ``stored_stream.cu``, for Hopper."""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.cuda_driver import TensorMap, tensor_map
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count
from .stored_matrix import StoredMatrix

SOURCE = "../quantized/stored_stream.cu"
FALLBACK = "Triton's kernel multiplies few rows by stored weights"
MAX_ROWS = 64
MAX_UNITS = 8
UNIT_ROWS = 16  # weight rows that a warp takes, of gate and up together if gated
BLOCK_BYTES = 128  # of a weight row in a block
SHARED_BYTES = 112 << 10  # so that two programs fit a multiprocessor
BARRIER_BYTES = 256
MAX_SLOTS = BARRIER_BYTES // 16  # two barriers each
MAX_SPLITS, FEW_UNITS = 6, 4  # parts of a layer of which a multiprocessor has fewer units
PROGRAMS = 2
"""Programs of a multiprocessor.

With one, some multiprocessors get two of a launch and others none while a norm's programs take
their registers: with 4 bits a layer's launches then took 204 us, not 139.
"""

SCALES_OF_ROWS, SCALES_OF_CHUNKS, SCALES_OF_LANES = range(3)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Launch configuration of the kernel.

    Sums are added in an order that depends on ``splits`` alone.

    Attributes:
        units: warps that compute, each 16 weight rows at a time.
        depth: blocks of 128 bytes of a row in a slot of the ring.
        slots: slots of the ring.
        splits: parts of a row's columns, each for a program.
        ahead: slots that are fetched into L2 while ``x`` is not there yet.
        programs: programs of a multiprocessor.
    """

    units: int
    slots: int
    depth: int = 1
    splits: int = 1
    ahead: int = 0
    programs: int = PROGRAMS


class _Layer(ctypes.Structure):  # Layer in stored_stream.cu
    _fields_ = (
        ("weights", ctypes.c_ubyte * 128), ("x", ctypes.c_ubyte * 128),
        ("scales", ctypes.c_void_p), ("zeros", ctypes.c_void_p), ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p), ("rows", ctypes.c_int), ("pad", ctypes.c_ubyte * 28),
    )  # fmt: skip


def stream_config(
    matrix: StoredMatrix, rows: int, gated: bool, splits: int = 1, *, depth: int | None = None,
    programs: int = PROGRAMS, shared_bytes: int = SHARED_BYTES, ahead: int = 0,
) -> StreamConfig:  # fmt: skip
    """Return the configuration for a matrix and a number of rows.

    Args:
        matrix: the weights.
        rows: rows of x.
        gated: whether they are those of gate and up.
        splits: parts of the result.
        depth: as in ``StreamConfig``; ``None`` for what was fastest on an H200.
        programs: as in ``StreamConfig``.
        shared_bytes: shared memory of a program.
        ahead: as in ``StreamConfig``.
    """
    if depth is None:
        depth = 2 if matrix.is_fp8 and rows <= 16 else 1
    count = multiprocessor_count(matrix.codes.device) * programs
    share = -(-(matrix.rows // UNIT_ROWS) * splits // count)
    units = -(-share // -(-share // MAX_UNITS))
    chunks = block_columns(matrix) // 64
    slot = depth * (row_tiles(rows) * 8 * 128 * chunks + units * UNIT_ROWS * BLOCK_BYTES)
    slots = min(MAX_SLOTS, (shared_bytes - BARRIER_BYTES) // slot)
    return StreamConfig(units, slots, depth, splits, ahead, programs)


def stream_splits(matrix: StoredMatrix) -> int:
    """Return the number of parts in which a layer that is not gated is best computed.

    It does not depend on the number of rows, so that a row's result does not.
    """
    units = matrix.rows // UNIT_ROWS
    if units >= FEW_UNITS * multiprocessor_count(matrix.codes.device):
        return 1
    return min(MAX_SPLITS, matrix.columns // block_columns(matrix))


def block_columns(matrix: StoredMatrix) -> int:
    """Return the columns of a block."""
    return BLOCK_BYTES * (1 if matrix.is_fp8 else 2)


def row_tiles(rows: int) -> int:
    """Return the groups of 8 rows of x that the kernel is compiled for."""
    return next(tiles for tiles in (1, 2, 4, 8) if rows <= 8 * tiles)


def scale_place(matrix: StoredMatrix) -> int | None:
    """Return where the kernel applies a matrix's scales; ``None`` if it cannot."""
    if matrix.groups == 1:
        return SCALES_OF_ROWS
    if matrix.columns_per_scale in (64, 128) and (
        not matrix.is_fp8 or matrix.columns_per_scale == BLOCK_BYTES
    ):
        return SCALES_OF_CHUNKS
    if not matrix.is_fp8 and matrix.columns_per_scale == 32:
        return SCALES_OF_LANES
    return None


def kernel_defines(
    matrix: StoredMatrix,
    rows: int,
    config: StreamConfig,
    *,
    gated: bool,
    silu: bool,
    has_bias: bool,
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
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
        ("UNITS", config.units),
        ("TILES_N", row_tiles(rows)),
        ("DEPTH", config.depth),
        ("SLOTS", config.slots),
        ("SPLITS", config.splits),
        ("AHEAD", config.ahead),
    )


def shared_bytes(matrix: StoredMatrix, rows: int, config: StreamConfig) -> int:
    """Return the shared memory of a program."""
    x = row_tiles(rows) * 8 * 128 * (block_columns(matrix) // 64)
    slot = config.depth * (x + config.units * UNIT_ROWS * BLOCK_BYTES)
    return config.slots * slot + BARRIER_BYTES


def stored_stream_fits(matrix: StoredMatrix, x_dtype: torch.dtype) -> bool:
    """Return whether the kernel supports a matrix, on its device and for rows of this type."""
    return (
        is_hopper(matrix.codes.device)
        and x_dtype == torch.bfloat16
        and matrix.scales.dtype in (torch.float32, torch.bfloat16)
        and scale_place(matrix) is not None
        and matrix.columns % block_columns(matrix) == 0
        and matrix.rows % UNIT_ROWS == 0
        and matrix.codes.data_ptr() % 16 == 0
        and matrix.scales.data_ptr() % 16 == 0
    )


def stored_stream(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    config: StreamConfig,
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
    shared = shared_bytes(matrix, rows, config)
    kernel = load_kernel(x.device, "stored_stream", defines, shared, FALLBACK, SOURCE)
    if kernel is None:
        return False
    codes, tiles = matrix.codes, row_tiles(rows)
    layer = _Layer(rows=rows, out=out.data_ptr(), scales=matrix.scales.data_ptr())
    layer.zeros = None if matrix.zeros is None else matrix.zeros.data_ptr()
    layer.bias = None if bias is None else bias.data_ptr()
    layer.weights = _blocks_map(codes, UNIT_ROWS // (2 if gated else 1), config.depth)
    layer.x = _blocks_map(x, 8 * tiles, config.depth * (block_columns(matrix) // 64))
    grid = multiprocessor_count(x.device) * config.programs // config.splits * config.splits
    kernel.launch(grid, 32 * (config.units + 1), [layer], pdl)
    return True


def _blocks_map(matrix: torch.Tensor, rows: int, depth: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Describe rows for copies of ``rows`` of them by ``depth`` blocks of 128 bytes."""
    count, width = matrix.shape[0], matrix.shape[1] * matrix.element_size()
    found: TensorMap = tensor_map(
        matrix.data_ptr(),
        sizes=(BLOCK_BYTES // 2, count, width // BLOCK_BYTES),
        strides=(width, BLOCK_BYTES),
        box=(BLOCK_BYTES // 2, rows, depth),
    )
    return (ctypes.c_ubyte * 128).from_buffer_copy(found)
