"""Linear layers of stored matrices in Triton: the product of few rows, and the expansion for many.

Runs on every GPU that the kernels support, and in the interpreter. Weights become floats in
registers; a scale of a whole row applies to the sum, any other to the weights.
"""

import torch
import triton
import triton.language as tl

from ..layers.linear_few_rows import gate_activation
from ..triton_launch import next_power_of_2
from .fp8_codes import fp8_values
from .stored_matrix import StoredMatrix

TILE_N, TILE_K, WARPS = 32, 128, 4
MAX_TILE_M = 128  # rows of x in a program; more are divided among programs
EXPANDED_BYTES = 4096  # of codes that a program expands to memory: 32 of each thread


@triton.jit
def shared_values(values, rows, k, GROUP: tl.constexpr, GROUPS: tl.constexpr):
    """Return what the groups of columns k share in rows of a table, [rows, k], in float32."""
    return tl.load(values + rows[:, None] * GROUPS + (k // GROUP)[None, :]).to(tl.float32)


@triton.jit
def _expand_tile(
    codes, scales, zeros, n, k, live, odd: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, SHARED_ROWS: tl.constexpr, FP8: tl.constexpr, ZEROS: tl.constexpr,
    SCALED: tl.constexpr,
):  # fmt: skip
    """Return values of rows n at columns k (of 4 bits: of bytes k, their odd columns if `odd`)."""
    WIDTH: tl.constexpr = K if FP8 else K // 2
    at = n.to(tl.int64)[:, None] * WIDTH + k[None, :]
    packed = tl.load(codes + at, mask=live[None, :], other=0)
    column = tl.minimum(k if FP8 else 2 * k, K - 1)
    if FP8:
        values = fp8_values(packed)
    else:
        values = ((packed >> 4) if odd else (packed & 15)).to(tl.float32)
        if ZEROS:
            values -= shared_values(zeros, n, column, GROUP, GROUPS)
        else:
            values -= 8.0
    if SCALED:
        values *= shared_values(scales, n // SHARED_ROWS, column, GROUP, GROUPS)
    return tl.where(live[None, :], values, 0.0)


@triton.jit(do_not_specialize=["M"])
def stored_rows_kernel(
    x, codes, scales, zeros, bias, out, M, N,
    K: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, SHARED_ROWS: tl.constexpr,
    FP8: tl.constexpr, ZEROS: tl.constexpr, GATED: tl.constexpr, SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out [M, N] = x [M, K] @ w^T, or act(x @ gate^T) * (x @ up^T) with w = [gate; up]."""
    SCALED: tl.constexpr = GROUPS > 1
    WIDTH: tl.constexpr = K if FP8 else K // 2
    n = tl.minimum(tl.program_id(0) * BN + tl.arange(0, BN), N - 1)
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    x_rows = x + tl.minimum(m, M - 1).to(tl.int64) * K
    acc = tl.zeros([BN, BM], tl.float32)
    up_acc = tl.zeros([BN, BM], tl.float32)
    for k0 in tl.range(0, WIDTH, BK):
        k = k0 + tl.arange(0, BK)
        live = k < WIDTH
        for odd in tl.static_range(1 if FP8 else 2):
            column = k if FP8 else 2 * k + odd
            rows = tl.load(x_rows[None, :] + column[:, None], mask=live[:, None], other=0.0)
            tile = _expand_tile(codes, scales, zeros, n, k, live, odd, K, GROUP, GROUPS,
                                SHARED_ROWS, FP8, ZEROS, SCALED)  # fmt: skip
            acc = tl.dot(tile.to(rows.dtype), rows, acc, input_precision="ieee")
            if GATED:
                tile = _expand_tile(codes, scales, zeros, n + N, k, live, odd, K, GROUP, GROUPS,
                                    SHARED_ROWS, FP8, ZEROS, SCALED)  # fmt: skip
                up_acc = tl.dot(tile.to(rows.dtype), rows, up_acc, input_precision="ieee")
    if not SCALED:
        acc *= tl.load(scales + n // SHARED_ROWS).to(tl.float32)[:, None]
        if GATED:
            up_acc *= tl.load(scales + (n + N) // SHARED_ROWS).to(tl.float32)[:, None]
    if GATED:
        acc = gate_activation(acc, SILU) * up_acc
    if HAS_BIAS:
        acc += tl.load(bias + n).to(tl.float32)[:, None]
    to = out + m[None, :].to(tl.int64) * N + n[:, None]
    tl.store(to, acc.to(out.dtype.element_ty), mask=(m < M)[None, :])


@triton.jit(do_not_specialize=["N"])
def expand_kernel(
    codes, scales, zeros, out, N,
    K: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, SHARED_ROWS: tl.constexpr,
    FP8: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [N, K] = the values of a stored matrix; a program has BLOCK of them in a row.

    A thread takes runs of 8 columns, which share a scale: 16 bytes in bfloat16, which it stores at
    once. Neighboring threads have neighboring runs, so nothing moves between threads.
    """
    RUN: tl.constexpr = 8 if K % 8 == 0 and GROUP % 8 == 0 else (1 if FP8 else 2)
    BYTES: tl.constexpr = RUN if FP8 else RUN // 2
    first = tl.program_id(0).to(tl.int64) * (BLOCK // RUN)
    local = tl.arange(0, BLOCK // RUN)[:, None]
    run = (first + local).to(tl.uint32)
    row = run // (K // RUN)
    group = run % (K // RUN) // (GROUP // RUN)
    live = row < N
    byte = local * BYTES + tl.arange(0, BYTES)[None, :]
    packed = tl.load(codes + first * BYTES + byte, mask=live, other=0)
    shared = row // SHARED_ROWS * GROUPS + group
    scale = tl.load(scales + shared, mask=live, other=0).to(tl.float32)
    if FP8:
        values = fp8_values(packed)
    else:
        zero = 8.0
        if ZEROS:
            zero = tl.load(zeros + (row * GROUPS + group), mask=live, other=0).to(tl.float32)
        wide = packed.to(tl.int32)
        # A code in the lowest bits of 2^23 in float32 is 2^23 + code.
        bits = tl.interleave(wide & 15, wide >> 4) | 0x4B000000
        values = bits.to(tl.float32, bitcast=True) - (8388608.0 + zero)
    column = local * RUN + tl.arange(0, RUN)[None, :]
    tl.store(out + first * RUN + column, (values * scale).to(out.dtype.element_ty), mask=live)


def triton_stored_rows(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    *,
    gated: bool,
    silu: bool,
    bias: torch.Tensor | None,
) -> None:
    """Compute what ``stored_product`` does, for any number of rows; it checks the arguments."""
    rows, n = out.shape
    tile_m = min(MAX_TILE_M, max(16, next_power_of_2(rows)))
    many = tile_m == MAX_TILE_M
    tile_n = 2 * TILE_N if many else TILE_N
    stored_rows_kernel[(-(-n // tile_n), -(-rows // tile_m))](
        x, *_pointers(matrix), matrix.scales if bias is None else bias, out, rows, n,
        GATED=gated, SILU=silu, HAS_BIAS=bias is not None, BM=tile_m, BN=tile_n,
        BK=TILE_K // 2 if many else TILE_K, num_warps=WARPS, **_constants(matrix),
    )  # fmt: skip


def triton_expand(matrix: StoredMatrix, out: torch.Tensor) -> torch.Tensor:
    """Write a matrix's values, rounded once, to ``out`` [N, K], and return it."""
    block = EXPANDED_BYTES * (1 if matrix.is_fp8 else 2)
    expand_kernel[(-(-matrix.rows * matrix.columns // block),)](
        *_pointers(matrix), out, matrix.rows, BLOCK=block, num_warps=WARPS, **_constants(matrix)
    )
    return out


def _pointers(matrix: StoredMatrix) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    codes = matrix.codes.view(torch.uint8)
    return codes, matrix.scales, codes if matrix.zeros is None else matrix.zeros


def _constants(matrix: StoredMatrix) -> dict[str, int | bool]:
    return {
        "K": matrix.columns,
        "GROUP": matrix.columns_per_scale,
        "GROUPS": matrix.groups,
        "SHARED_ROWS": matrix.rows_per_scale,
        "FP8": matrix.is_fp8,
        "ZEROS": matrix.zeros is not None,
    }
