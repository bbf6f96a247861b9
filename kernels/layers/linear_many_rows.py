"""Linear layers of many rows, gated ones with their activation, on Hopper
(``linear_many_rows.cu``).

Elsewhere ``torch.mm`` and ``gated_gelu`` do the same in two launches. Each sum is taken in the
order of the columns by one program: results repeat bit for bit and do not depend on the other rows.
"""

import ctypes

import torch

from ..cuda.nvrtc import (
    SWIZZLE_64,
    SWIZZLE_128,
    SWIZZLE_NONE,
    CudaKernel,
    is_hopper,
    load_kernel,
    tensor_map,
)
from ..triton_launch import multiprocessor_count, require, require_tensor
from .gated_gelu import gated_gelu_reference

SOURCES = ("hopper.cuh", "linear_many_rows.cu")
ROWS, THREADS = 256, 384  # rows of x of a tile; of two warp groups that compute, one that loads
COLUMNS = 64  # a slot of the ring holds as many of each row
CLUSTER = 2  # programs that share their rows of x
SHARED = 232448
# Below it torch.mm, which has smaller tiles, takes the product. By themselves these take 2 to 30 %
# longer at shares of 0.81 to 0.86 and as long at 0.97; a step of full ones takes 2 to 7 % less.
MIN_UTILIZATION = 0.9


def _tiles(rows: int, n: int, gated: bool, tile: int) -> int:
    """Tiles, those of a cluster counted as one, of [rows, n]."""
    wide = tile // (2 if gated else 1) * CLUSTER
    return -(-rows // ROWS) * -(-n // wide)


def _rounds(rows: int, n: int, gated: bool, tile: int, programs: int) -> int:
    """How often each program computes a tile, the last time perhaps not all."""
    return -(-_tiles(rows, n, gated, tile) // (programs // CLUSTER))


def _widths(gated: bool) -> tuple[int, ...]:
    """Weight rows of a tile, gate and up rows counted together: what there is."""
    return (192,) if gated else (192, 168)


def tile_width(rows: int, n: int, gated: bool, programs: int) -> int:
    """The tile whose rounds take the least time, the wider one where both take the same."""
    return min(_widths(gated), key=lambda tile: _rounds(rows, n, gated, tile, programs) * tile)


def tile_utilization(rows: int, n: int, gated: bool, programs: int) -> float:
    """Share of what the programs compute, whole tiles in whole rounds, that is wanted."""
    tile = tile_width(rows, n, gated, programs)
    done = _rounds(rows, n, gated, tile, programs) * programs * ROWS * tile
    return rows * n * (2 if gated else 1) / done


def fills_tiles(rows: int, weight: torch.Tensor, *, gated: bool = False) -> bool:
    """Whether a product of so many rows fills the tiles of ``linear_many_rows`` well enough."""
    n = weight.shape[0] // (2 if gated else 1)
    return tile_utilization(rows, n, gated, multiprocessor_count(weight.device)) >= MIN_UTILIZATION


def linear_many_rows_fits(weight: torch.Tensor, *, gated: bool = False) -> bool:
    """Whether ``linear_many_rows`` can run with this weight on its device; compiles it there."""
    return (
        is_hopper(weight.device)
        and weight.dtype == torch.bfloat16
        and weight.is_contiguous()
        and not _misfit(weight, gated)
        and all(_kernel(weight.device, tile, gated) is not None for tile in _widths(gated))
    )


def _misfit(weight: torch.Tensor, gated: bool) -> str:
    """What is wrong with a weight's shape or place; empty where nothing is."""
    (outputs, inner), even = weight.shape, 16 if gated else 8
    if outputs % even:
        return f"weight has {outputs} rows; they must be a multiple of {even}"
    if inner % COLUMNS or inner < 2 * COLUMNS:
        return f"weight has {inner} columns; they must be a multiple of 64 from 128 on"
    if weight.data_ptr() % 16:
        return "weight must begin at a multiple of 16 bytes"
    return ""


def defines(tile: int, gated: bool) -> tuple[tuple[str, object], ...]:
    """The kernel's macros."""
    return (("TILE", tile), ("GATED", str(gated).lower()))


def _kernel(device: torch.device, tile: int, gated: bool) -> CudaKernel | None:
    otherwise = "torch.mm takes its place"
    return load_kernel(device, SOURCES, "linear_many_rows", defines(tile, gated), SHARED, otherwise)


def linear_many_rows(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    gated: bool = False,
    pdl: bool = False,
) -> torch.Tensor:
    """``x @ weight.T`` in bfloat16 with float32 sums.

    Args:
        x: [rows, K]. weight: [N, K], or [2N, K] (gate rows, then up rows) where gated; one for
            which ``linear_many_rows_fits``.
        out: [rows, N].
        gated: out = gelu_tanh(x @ gate.T) * (x @ up.T), not rounded in between.
        pdl: the launch before must not write the weight, which is read before it has ended.

    Raises:
        ValueError: a shape, type or device that does not fit.
    """
    for name, tensor in (("x", x), ("weight", weight), ("out", out)):
        require_tensor(name, tensor, torch.bfloat16, 2)
    (rows, inner), n = x.shape, weight.shape[0] // (2 if gated else 1)
    require(rows >= 1, "x has no rows")
    require(weight.shape[1] == inner, f"x has {inner} columns, weight {weight.shape[1]}")
    require(tuple(out.shape) == (rows, n), f"out is {tuple(out.shape)}; it must be {(rows, n)}")
    misfit = _misfit(weight, gated)
    require(not misfit, misfit)
    for name, tensor in (("x", x), ("out", out)):
        require(tensor.data_ptr() % 16 == 0, f"{name} must begin at a multiple of 16 bytes")
    require(x.device.type == "cuda", f"x is on {x.device}; linear_many_rows needs a Hopper GPU")
    programs = multiprocessor_count(x.device)
    tile = tile_width(rows, n, gated, programs)
    kernel = _kernel(x.device, tile, gated)
    require(
        kernel is not None, "linear_many_rows needs a Hopper GPU; ask linear_many_rows_fits first"
    )
    assert kernel is not None
    tiles = _tiles(rows, n, gated, tile)
    integers = rows, -(-rows // ROWS), tiles, inner // COLUMNS
    kernel.launch(
        CLUSTER * min(tiles, programs // CLUSTER),
        THREADS,
        (*_maps(x, weight, out, tile, gated), *(ctypes.c_int(each) for each in integers)),
        pdl,
    )
    return out


def _maps(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, tile: int, gated: bool
) -> list[ctypes.Array[ctypes.c_char]]:
    """Descriptors: of a program's part of x, of a tile's weights, of what one copy stores."""
    (rows, inner), n, parts = x.shape, out.shape[1], 2 if gated else 1
    wide = tile // parts
    # Weight rows by eights, so that gate and up rows lie in turn in shared memory.
    row = inner * 2
    if wide % 16:
        columns, tall, swizzle = wide, 32, SWIZZLE_NONE
    else:
        columns, tall, swizzle = (32, 64, SWIZZLE_64) if wide % 64 else (64, 64, SWIZZLE_128)
    return [
        tensor_map(x.data_ptr(), (inner, rows), (row,), (COLUMNS, ROWS // CLUSTER)),
        tensor_map(
            weight.data_ptr(), (inner, 8, parts, n // 8), (row, n * row, 8 * row),
            (COLUMNS, 8, parts, wide // 8),
        ),
        tensor_map(out.data_ptr(), (n, rows), (n * 2,), (columns, tall), swizzle),
    ]  # fmt: skip


def linear_many_rows_reference(
    x: torch.Tensor, weight: torch.Tensor, gated: bool = False
) -> torch.Tensor:
    """What ``linear_many_rows`` computes, in float64."""
    product = x.double() @ weight.double().T
    return gated_gelu_reference(product) if gated else product
