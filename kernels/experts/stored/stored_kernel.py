"""Triton kernel of the experts' linear layers whose weights are stored in FP8 or 4 bits.

As in ``grouped_kernels``, products are computed transposed over tiles of grouped pairs, and every
sum runs over the columns in ascending chunks within one program: a row's result depends neither on
its neighbors nor on its place in a tile. Weights become bfloat16 in registers, exactly, and are the
left operand of the matrix instruction. A scale applies to the float32 sum of its columns.
"""

import triton
import triton.language as tl

from ...quantized.fp8_codes import fp8_values
from ...triton_launch import pdl_launch_dependents, pdl_wait
from ..grouped_kernels import activate


@triton.constexpr_function
def _fp8_asm():
    """PTX that expands four codes, $2, to two pairs of bfloat16 (see stored_weights.cuh)."""
    pair = (
        "prmt.b32 t, $2, 0, {}; shr.b32 u, t, 4; and.b32 u, u, 0x07F007F0;"
        "lop3.b32 t, t, 0x80008000, u, 0xEA; fma.rn.bf16x2 {}, t, m, z;"
    )
    return (
        "{.reg .b32 t, u, m, z; mov.b32 m, 0x7B807B80; mov.b32 z, 0x80008000;"
        + pair.format("0x1404", "$0")
        + pair.format("0x3424", "$1")
        + "}"
    )


@triton.constexpr_function
def _int4_asm(high, zeros):
    """PTX that takes the low or high codes of four bytes, $2, less their zeros, exactly.

    $3 and $4 are -128 - zero in bfloat16, a pair each; without zeros all are -136.
    """
    move = f"shr.b32 w, $2, {4 * high};"
    pair = (
        "prmt.b32 t, w, 0, {}; and.b32 t, t, 0x000F000F; or.b32 t, t, 0x43004300;"
        "fma.rn.bf16x2 {}, t, m, {};"
    )
    return (
        f"{{.reg .b32 w, t, m, z; mov.b32 m, 0x3F803F80; mov.b32 z, 0xC308C308; {move}"
        + pair.format("0x4140", "$0", "$3" if zeros else "z")
        + pair.format("0x4342", "$1", "$4" if zeros else "z")
        + "}"
    )


@triton.jit
def _expand_codes(
    codes, zero, HIGH: tl.constexpr, FP8: tl.constexpr, ZEROS: tl.constexpr, ASM: tl.constexpr
):
    """Return the values of bytes without their scales; of 4 bits, those of one half."""
    if FP8:
        if ASM:
            values = tl.inline_asm_elementwise(
                _fp8_asm(), "=r,=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=4
            )
        else:
            values = fp8_values(codes)
    elif ASM:
        if ZEROS:
            offset = (-128.0 - zero.to(tl.float32)).to(tl.bfloat16)
            values = tl.inline_asm_elementwise(
                _int4_asm(HIGH, True), "=r,=r,r,r,r", [codes, offset], dtype=tl.bfloat16,
                is_pure=True, pack=4,
            )  # fmt: skip
        else:
            values = tl.inline_asm_elementwise(
                _int4_asm(HIGH, False), "=r,=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=4
            )
    else:
        values = ((codes >> 4) if HIGH else (codes & 15)).to(tl.float32)
        values -= zero.to(tl.float32) if ZEROS else 8.0
    return values


@triton.jit
def _add_tile(
    acc, rows, zeros, scale, byte, low, high, WIDTH: tl.constexpr, EVEN: tl.constexpr,
    FP8: tl.constexpr, ZEROS: tl.constexpr, SCALED: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Return acc plus the product of weight rows at some bytes with the columns of x they hold."""
    if EVEN:
        codes = tl.load(rows[:, None] + byte[None, :])
    else:
        codes = tl.load(rows[:, None] + byte[None, :], mask=(byte < WIDTH)[None, :], other=0)
    zero = tl.load(zeros)[:, None] if ZEROS else 0
    total = tl.zeros(acc.shape, tl.float32) if SCALED else acc
    values = _expand_codes(codes, zero, 0, FP8, ZEROS, ASM).to(low.dtype)
    total = tl.dot(values, low, total, input_precision="ieee")
    if not FP8:
        values = _expand_codes(codes, zero, 1, FP8, ZEROS, ASM).to(low.dtype)
        total = tl.dot(values, high, total, input_precision="ieee")
    if SCALED:
        total = acc + total * scale[:, None]
    return total


@triton.jit
def _columns_of_x(x_rows, column, K: tl.constexpr, EVEN: tl.constexpr):
    if EVEN:
        part = tl.load(x_rows[None, :] + column[:, None])
    else:
        part = tl.load(x_rows[None, :] + column[:, None], mask=(column < K)[:, None], other=0.0)
    return part


@triton.jit
def _scale_of(scales, group, GROUPS: tl.constexpr, SCALE_ROWS: tl.constexpr):
    return tl.load(scales + tl.minimum(group, GROUPS - 1) * SCALE_ROWS).to(tl.float32)


@triton.jit
def _stored_sums(
    x_rows, codes, scales, zeros, expert, n, K: tl.constexpr, N: tl.constexpr,
    GROUP: tl.constexpr, GROUPS: tl.constexpr, SHARED_ROWS: tl.constexpr, FP8: tl.constexpr,
    ZEROS: tl.constexpr, GATED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, STAGES: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Return the products of an expert's weight rows n with rows of x; if GATED, also of up's."""
    WIDTH: tl.constexpr = K if FP8 else K // 2
    ROWS: tl.constexpr = 2 * N if GATED else N
    SCALE_ROWS: tl.constexpr = (ROWS + SHARED_ROWS - 1) // SHARED_ROWS
    GROUP_BYTES: tl.constexpr = GROUP if FP8 else GROUP // 2
    EVEN: tl.constexpr = WIDTH % BK == 0
    SCALED: tl.constexpr = GROUPS > 1
    inside = tl.minimum(n, N - 1)  # weight rows beyond the last read the last
    first_codes = codes + expert * (ROWS * WIDTH)
    first_scales = scales + expert * (GROUPS * SCALE_ROWS)
    first_zeros = zeros + expert * (GROUPS * ROWS)
    first_rows = first_codes + inside * WIDTH
    up_rows = first_codes + (inside + N) * WIDTH
    first_at = first_scales + inside // SHARED_ROWS
    up_at = first_scales + (inside + N) // SHARED_ROWS
    acc = tl.zeros([BN, BM], tl.float32)
    up_acc = tl.zeros([BN, BM], tl.float32)
    # Scales are read a step ahead; the compiler does not do it.
    scale = _scale_of(first_at, 0, GROUPS, SCALE_ROWS)
    up_scale = _scale_of(up_at, 0, GROUPS, SCALE_ROWS) if GATED else scale
    for k0 in tl.range(0, WIDTH, BK, num_stages=STAGES):
        byte = k0 + tl.arange(0, BK)
        if FP8:
            column = byte
            low = _columns_of_x(x_rows, column, K, EVEN)
            high = low
        else:
            column = byte // 16 * 32 + byte % 16
            low = _columns_of_x(x_rows, column, K, EVEN)
            high = _columns_of_x(x_rows, column + 16, K, EVEN)
        at = first_zeros + k0 // GROUP_BYTES * ROWS + inside
        acc = _add_tile(acc, first_rows, at, scale, byte, low, high, WIDTH, EVEN, FP8, ZEROS,
                        SCALED, ASM)  # fmt: skip
        if GATED:
            up_acc = _add_tile(up_acc, up_rows, at + N, up_scale, byte, low, high, WIDTH, EVEN,
                               FP8, ZEROS, SCALED, ASM)  # fmt: skip
        if SCALED:
            group = (k0 + BK) // GROUP_BYTES
            scale = _scale_of(first_at, group, GROUPS, SCALE_ROWS)
            if GATED:
                up_scale = _scale_of(up_at, group, GROUPS, SCALE_ROWS)
    if not SCALED:
        acc *= scale[:, None]
        up_acc *= up_scale[:, None]
    return acc, up_acc


@triton.jit(do_not_specialize=["most", "rows_of_x"])
def stored_product_kernel(
    x, order, tiles, codes, scales, zeros, weights, out, most, rows_of_x,
    K: tl.constexpr, N: tl.constexpr, TOP_K: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, SHARED_ROWS: tl.constexpr, FP8: tl.constexpr, ZEROS: tl.constexpr,
    GATED: tl.constexpr, ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, STAGES: tl.constexpr, ASM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One of the two products.

    GATED: out [pairs, N] = activation(gate(x)) * up(x), pairs sorted. Otherwise x has a row for
    each sorted pair, and out [TOP_K, rows_of_x, N] = down(x) * weight, back in the pairs' places.

    BK is in bytes of a weight row; a step lies in one group of columns.
    """
    BLOCKS: tl.constexpr = (N + BN - 1) // BN
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    tile = tl.program_id(0) // BLOCKS
    expert = tl.load(tiles + tile)
    if expert >= 0:
        begin = tl.load(tiles + most + tile)
        rows = tl.load(tiles + 2 * most + tile)
        n = tl.program_id(0) % BLOCKS * BN + tl.arange(0, BN)
        m = tl.arange(0, BM)
        position = begin + tl.minimum(m, rows - 1)
        pair = tl.load(order + position)
        x_rows = x + (pair // TOP_K if GATED else position).to(tl.int64) * K
        acc, up_acc = _stored_sums(
            x_rows, codes, scales, zeros, expert.to(tl.int64), n, K, N, GROUP, GROUPS, SHARED_ROWS,
            FP8, ZEROS, GATED, BM, BN, BK, STAGES, ASM,
        )  # fmt: skip
        if GATED:
            acc = activate(acc, up_acc, ACTIVATION)
            to = out + (begin + m).to(tl.int64)[None, :] * N + n[:, None]
        else:
            acc *= tl.load(weights + pair)[None, :]
            place = (pair % TOP_K).to(tl.int64) * rows_of_x + pair // TOP_K
            to = out + place[None, :] * N + n[:, None]
        tl.store(to, acc.to(out.dtype.element_ty), mask=(m < rows)[None, :] & (n < N)[:, None])
