"""Linear layers of many rows for Hopper, including gated ones (``linear_many_rows.cu``).

Elsewhere ``torch.mm`` and ``gated_activation`` do the same in two launches. One program takes each
sum in the order of the columns, so results repeat bit for bit and do not depend on the other rows.
"""

import ctypes

import torch

from ..argument_checks import require, require_tensor
from ..cuda.cuda_driver import (
    TENSOR_MAP_SWIZZLE_64B,
    TENSOR_MAP_SWIZZLE_128B,
    TENSOR_MAP_SWIZZLE_NONE,
    CudaKernel,
    TensorMap,
    tensor_map,
)
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count
from .gated_activation import gated_activation_reference
from .linear_few_rows import require_activation

ROWS = 256  # rows of x in a tile
THREADS = 384  # two warp groups compute, one loads
COLUMNS = 64  # of each row, in a slot of the ring
CLUSTER = 2  # programs that share their rows of x
SHARED_BYTES = 232448
# Below this utilization, use torch.mm, which has smaller tiles. Measured alone, this kernel takes
# 2 to 30 % longer at utilizations of 0.81 to 0.86, and equally long at 0.97. A step whose tiles are
# full takes 2 to 7 % less.
MIN_UTILIZATION = 0.9


def tile_count(rows: int, n: int, gated: bool, tile: int) -> int:
    """Number of tiles of [rows, n], counting those of a cluster as one."""
    columns = tile // (2 if gated else 1) * CLUSTER
    return -(-rows // ROWS) * -(-n // columns)


def _rounds(rows: int, n: int, gated: bool, tile: int, programs: int) -> int:
    """Number of tiles that a program computes; in the last round some may have none."""
    return -(-tile_count(rows, n, gated, tile) // (programs // CLUSTER))


def tile_widths(gated: bool) -> tuple[int, ...]:
    """Possible weight rows of a tile, gate and up rows counted together."""
    return (192, 176) if gated else (192, 168, 160, 128)


def tile_width(rows: int, n: int, gated: bool, programs: int) -> int:
    """Return the tile whose rounds take the least time; of equals, the wider one."""
    return min(tile_widths(gated), key=lambda tile: _rounds(rows, n, gated, tile, programs) * tile)


def tile_utilization(rows: int, n: int, gated: bool, programs: int) -> float:
    """Return the useful share of what the programs compute: whole tiles in whole rounds."""
    tile = tile_width(rows, n, gated, programs)
    computed = _rounds(rows, n, gated, tile, programs) * programs * ROWS * tile
    return rows * n * (2 if gated else 1) / computed


def fills_tiles(rows: int, weight: torch.Tensor, *, gated: bool = False) -> bool:
    """Return whether a linear layer of this many rows reaches ``MIN_UTILIZATION``."""
    n = weight.shape[0] // (2 if gated else 1)
    programs = multiprocessor_count(weight.device)
    return tile_utilization(rows, n, gated, programs) >= MIN_UTILIZATION


def linear_many_rows_fits(
    weight: torch.Tensor, *, gated: bool = False, activation: str = "gelu_tanh"
) -> bool:
    """Return whether ``linear_many_rows`` supports this weight on its device.

    Compiles the kernel there.
    """
    return (
        is_hopper(weight.device)
        and weight.dtype == torch.bfloat16
        and weight.is_contiguous()
        and not _weight_problem(weight, gated)
        and all(
            _kernel(weight.device, tile, gated, activation) is not None
            for tile in tile_widths(gated)
        )
    )


def _weight_problem(weight: torch.Tensor, gated: bool) -> str:
    """Return what is wrong with a weight's shape or address, or an empty text."""
    (outputs, inner), multiple = weight.shape, 16 if gated else 8
    if outputs % multiple:
        return f"weight has {outputs} rows; their number must be a multiple of {multiple}."
    if inner % COLUMNS or inner < 2 * COLUMNS:
        return f"weight has {inner} columns; their number must be a multiple of 64, at least 128."
    if weight.data_ptr() % 16:
        return "weight must begin at a multiple of 16 bytes."
    return ""


def kernel_defines(
    tile: int, gated: bool, activation: str = "gelu_tanh"
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    silu = gated and activation == "silu"
    return (("TILE", tile), ("GATED", str(gated).lower()), ("SILU", str(silu).lower()))


def _kernel(device: torch.device, tile: int, gated: bool, activation: str) -> CudaKernel | None:
    defines = kernel_defines(tile, gated, activation)
    fallback = "torch.mm computes linear layers of many rows"
    return load_kernel(device, "linear_many_rows", defines, SHARED_BYTES, fallback)


def linear_many_rows(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    gated: bool = False,
    activation: str = "gelu_tanh",
    pdl: bool = False,
) -> torch.Tensor:
    """Compute ``x @ weight.T`` in bfloat16 with float32 sums.

    Args:
        x: [rows, K].
        weight: [N, K]; [2N, K] if gated, gate rows first. ``linear_many_rows_fits`` accepts it.
        out: [rows, N].
        gated: compute ``activation(x @ gate.T) * (x @ up.T)`` without rounding in between.
        activation: a key of ``linear_few_rows.ACTIVATIONS``.
        pdl: launch with programmatic dependent launch. The launch before must not write the weight,
            which is read before that launch has ended.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape, dtype or device is not supported.
    """
    _check(x, weight, out, gated)
    require_activation(activation)
    (rows, inner), n = x.shape, out.shape[1]
    programs = multiprocessor_count(x.device)
    tile = tile_width(rows, n, gated, programs)
    kernel = _kernel(x.device, tile, gated, activation)
    require(
        kernel is not None, "linear_many_rows needs a Hopper GPU; call linear_many_rows_fits first."
    )
    assert kernel is not None
    tiles = tile_count(rows, n, gated, tile)
    integers = rows, -(-rows // ROWS), tiles, inner // COLUMNS
    kernel.launch(
        CLUSTER * min(tiles, programs // CLUSTER),
        THREADS,
        (*_maps(x, weight, out, tile, gated), *(ctypes.c_int(each) for each in integers)),
        pdl,
    )
    return out


def _check(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, gated: bool) -> None:
    """Raise ValueError unless the tensors of a call fit together and are on a GPU."""
    for name, tensor in (("x", x), ("weight", weight), ("out", out)):
        require_tensor(name, tensor, torch.bfloat16, 2)
    (rows, inner), n = x.shape, weight.shape[0] // (2 if gated else 1)
    require(rows >= 1, "x has no rows.")
    require(weight.shape[1] == inner, f"x has {inner} columns, but weight has {weight.shape[1]}.")
    require(
        tuple(out.shape) == (rows, n), f"out has shape {tuple(out.shape)}; it must be {(rows, n)}."
    )
    problem = _weight_problem(weight, gated)
    require(not problem, problem)
    for name, tensor in (("x", x), ("out", out)):
        require(tensor.data_ptr() % 16 == 0, f"{name} must begin at a multiple of 16 bytes.")
    require(
        x.device.type == "cuda",
        f"linear_many_rows needs a Hopper GPU; its tensors are on {x.device}.",
    )


def _maps(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, tile: int, gated: bool
) -> list[TensorMap]:
    """Describe a program's part of x, a tile's weights, and what one copy of results stores."""
    (inner, n), parts, row = (x.shape[1], out.shape[1]), 2 if gated else 1, x.shape[1] * 2
    weight_map = tensor_map(
        weight.data_ptr(),
        # Weight rows by eights, so that gate and up rows take turns in shared memory.
        sizes=(inner, 8, parts, n // 8),
        strides=(row, n * row, 8 * row),
        box=(COLUMNS, 8, parts, tile // parts // 8),
    )
    return [x_map(x), weight_map, out_map(out, tile // parts)]


def x_map(x: torch.Tensor) -> TensorMap:
    """Describe a program's part of x."""
    rows, inner = x.shape
    return tensor_map(
        x.data_ptr(), sizes=(inner, rows), strides=(inner * 2,), box=(COLUMNS, ROWS // CLUSTER)
    )


def out_map(out: torch.Tensor, tile_columns: int) -> TensorMap:
    """Describe what one copy of results stores of a tile of this many columns."""
    rows, n = out.shape
    if tile_columns % 16:
        columns, chunk_rows, swizzle = tile_columns, 32, TENSOR_MAP_SWIZZLE_NONE
    elif tile_columns % 64:
        columns, chunk_rows, swizzle = 32, 64, TENSOR_MAP_SWIZZLE_64B
    else:
        columns, chunk_rows, swizzle = 64, 64, TENSOR_MAP_SWIZZLE_128B
    return tensor_map(
        out.data_ptr(), sizes=(n, rows), strides=(n * 2,), box=(columns, chunk_rows),
        swizzle=swizzle,
    )  # fmt: skip


def linear_many_rows_reference(
    x: torch.Tensor, weight: torch.Tensor, gated: bool = False, activation: str = "gelu_tanh"
) -> torch.Tensor:
    """Compute what ``linear_many_rows`` computes, in float64."""
    product = x.double() @ weight.double().T
    if not gated:
        return product
    gate, up = product.chunk(2, dim=1)
    return gated_activation_reference(gate, up, activation)
