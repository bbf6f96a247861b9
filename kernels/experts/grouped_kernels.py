"""Triton kernels of the experts' linear layers over tiles of grouped pairs.

Products are computed transposed, ``W [tile_n, tile_k] @ x^T [tile_k, tile_rows]``: weights that are
expanded in registers may be the left operand of Hopper's matrix instruction, not the right one.
Every sum runs over the columns in ascending chunks within one program, so a row's result depends
neither on its neighbors nor on its place in a tile.

MXFP4 is read as 32-bit words of eight codes. Plane j is code j of every word; planes are multiplied
one after the other with the same columns of x, whose columns are permuted accordingly
(``permuted_column``). Multiplying the expanded code by the scale is exact. It is done with
2^-64 of the scale, which keeps it within bfloat16, and undone in float32 at the end.
"""

import triton
import triton.language as tl

from ..triton_launch import pdl_launch_dependents, pdl_wait

CHUNK = 128
"""Columns that ``permuted_column`` permutes among themselves."""


@triton.jit
def permuted_column(column):
    """Return the place of a column of x for MXFP4: a chunk of 128 is made of planes of 16 words."""
    return column // 128 * 128 + column % 8 * 16 + column % 128 // 8


@triton.jit(do_not_specialize=["rows"])
def permute_columns_kernel(
    x, out, rows, K: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    PLANES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Write out [rows, PADDED] = x [rows, K] with permuted columns, zero for columns beyond K.

    If PLANES, the order is that of ``permuted_column``; else of ``place_of`` (many_rows_mxfp4.cu).
    """
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    to = tl.arange(0, BLOCK)
    if PLANES:
        column = to // 128 * 128 + to % 16 * 8 + to % 128 // 16
    else:
        lane, word = to % 8 // 2, to % 128 // 32
        code = to % 2 * 4 + to % 32 // 16 * 2 + to % 16 // 8
        column = to // 128 * 128 + lane * 32 + word * 8 + code
    values = tl.load(x + row * K + column, mask=column < K, other=0.0)
    tl.store(out + row * PADDED + to, values, mask=to < PADDED)


@triton.constexpr_function
def _plane_asm(plane):
    """PTX that expands code ``plane`` of two words, $1 and $2, and multiplies by the scale, $3."""
    half, shift = (0x5410, plane * 4) if plane < 4 else (0x7632, plane * 4 - 16)
    size = f"shl.b32 u, t, {6 - shift};" if shift <= 6 else f"shr.b32 u, t, {shift - 6};"
    return (
        f"{{.reg .b32 t, u; prmt.b32 t, $1, $2, {half}; {size} shl.b32 t, t, {12 - shift};"
        "and.b32 u, u, 0x01C001C0; lop3.b32 t, t, 0x80008000, u, 0xEA;"
        "mov.b32 u, 0x80008000; fma.rn.bf16x2 $0, t, $3, u;}"
    )


@triton.jit
def expand_mxfp4_plane(words, scale, J: tl.constexpr, ASM: tl.constexpr):
    """Code J of each int32 word, times 2^-64 of the scale; bfloat16 if ASM, else float32.

    The bits of a code, moved to the lowest exponent bits, are its value times 2^-126.
    """
    if ASM:
        value = tl.inline_asm_elementwise(
            _plane_asm(J), "=r,r,r,r", [words, _scale_bfloat16(scale)],
            dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        code = words >> (4 * J)
        bits = ((code & 8) << 28) | ((code & 7) << 22)
        factor = (scale.to(tl.int32) + 62) << 23
        value = bits.to(tl.float32, bitcast=True) * factor.to(tl.float32, bitcast=True)
    return value


@triton.jit
def _scale_bfloat16(scale):
    """2^(scale - 127) * 2^126 * 2^-64 of an MXFP4 scale."""
    return ((scale.to(tl.int16) + 62) << 7).to(tl.bfloat16, bitcast=True)


@triton.jit
def activate(gate, up, ACTIVATION: tl.constexpr):
    if ACTIVATION == "clamped_swiglu":
        gate = tl.where(gate > 7.0, 7.0, gate)
        up = tl.where(up > 7.0, 7.0, tl.where(up < -7.0, -7.0, up))
        result = (up + 1.0) * gate / (1.0 + tl.exp(-1.702 * gate))
    elif ACTIVATION == "gelu_tanh":
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        result = gate * (1.0 - 1.0 / (tl.exp(2.0 * inner) + 1.0)) * up
    else:
        result = gate / (1.0 + tl.exp(-gate)) * up
    return result


@triton.jit
def _plain_tile(w_rows, k, K: tl.constexpr, EVEN_K: tl.constexpr):
    if EVEN_K:
        tile = tl.load(w_rows[:, None] + k[None, :])
    else:
        tile = tl.load(w_rows[:, None] + k[None, :], mask=(k < K)[None, :], other=0.0)
    return tile


@triton.jit
def _word_tile(w_rows, word, K: tl.constexpr, EVEN_K: tl.constexpr):
    if EVEN_K:
        tile = tl.load(w_rows[:, None] + word[None, :])
    else:
        tile = tl.load(w_rows[:, None] + word[None, :], mask=(word < K // 8)[None, :], other=0)
    return tile


@triton.jit
def _scale_tile(s_rows, word, K: tl.constexpr):
    """Load each word's scale. Beyond the last column any will do, because the words are zero."""
    return tl.load(s_rows[:, None] + tl.minimum(word // 4, K // 32 - 1)[None, :])


@triton.jit
def _mxfp4_sums(
    acc, up_acc, x_rows, w, scales, gate, up, K: tl.constexpr, BK: tl.constexpr,
    EVEN_K: tl.constexpr, STAGES: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Return acc and up_acc plus the products of the weight rows gate and up with rows of x."""
    gate_words, up_words = w + gate * (K // 8), w + up * (K // 8)
    gate_scales, up_scales = scales + gate * (K // 32), scales + up * (K // 32)
    word = tl.arange(0, BK // 8)
    x_columns = word // 16 * 128 + word % 16
    gate_scale = _scale_tile(gate_scales, word, K)
    up_scale = _scale_tile(up_scales, word, K)
    for k0 in tl.range(0, K, BK, num_stages=STAGES):
        gate_tile = _word_tile(gate_words, k0 // 8 + word, K, EVEN_K)
        up_tile = _word_tile(up_words, k0 // 8 + word, K, EVEN_K)
        for j in tl.static_range(8):
            part = tl.load(x_rows[None, :] + (k0 + x_columns + 16 * j)[:, None])
            plane = expand_mxfp4_plane(gate_tile, gate_scale, j, ASM)
            acc = tl.dot(plane.to(part.dtype), part, acc)
            plane = expand_mxfp4_plane(up_tile, up_scale, j, ASM)
            up_acc = tl.dot(plane.to(part.dtype), part, up_acc)
        # The next scales are read ahead; the compiler does not do it for single bytes.
        gate_scale = _scale_tile(gate_scales, (k0 + BK) // 8 + word, K)
        up_scale = _scale_tile(up_scales, (k0 + BK) // 8 + word, K)
    acc *= 18446744073709551616.0
    up_acc *= 18446744073709551616.0
    return acc, up_acc


@triton.jit(do_not_specialize=["most"])
def gate_up_kernel(
    x, order, tiles, w, scales, bias, h, most,
    K: tl.constexpr, N: tl.constexpr, ROW: tl.constexpr, H_ROW: tl.constexpr, TOP_K: tl.constexpr,
    MXFP4: tl.constexpr, INTERLEAVED: tl.constexpr, HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    STAGES: tl.constexpr, ASM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """h [pairs, H_ROW] = activation(gate(x)) * up(x), pairs sorted; permuted if MXFP4."""
    EVEN_K: tl.constexpr = K % BK == 0
    BLOCKS: tl.constexpr = (H_ROW + BN - 1) // BN
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    tile = tl.program_id(0) // BLOCKS
    expert = tl.load(tiles + tile)
    if expert >= 0:
        begin = tl.load(tiles + most + tile)
        rows = tl.load(tiles + 2 * most + tile)
        n = tl.program_id(0) % BLOCKS * BN + tl.arange(0, BN)
        m = tl.arange(0, BM)
        row = tl.load(order + begin + tl.minimum(m, rows - 1)) // TOP_K
        x_rows = x + row.to(tl.int64) * ROW
        inside = tl.minimum(n, N - 1)  # weight rows beyond the last read the last
        first = expert.to(tl.int64) * (2 * N)
        gate = first + (2 * inside if INTERLEAVED else inside)
        up = gate + (1 if INTERLEAVED else N)
        acc = tl.zeros([BN, BM], tl.float32)
        up_acc = tl.zeros([BN, BM], tl.float32)
        if MXFP4:
            acc, up_acc = _mxfp4_sums(
                acc, up_acc, x_rows, w, scales, gate, up, K, BK, EVEN_K, STAGES, ASM
            )
        else:
            for k0 in tl.range(0, K, BK, num_stages=STAGES):
                k = k0 + tl.arange(0, BK)
                if EVEN_K:
                    part = tl.load(x_rows[None, :] + k[:, None])
                else:
                    part = tl.load(x_rows[None, :] + k[:, None], mask=(k < K)[:, None], other=0.0)
                acc = tl.dot(_plain_tile(w + gate * K, k, K, EVEN_K), part, acc)
                up_acc = tl.dot(_plain_tile(w + up * K, k, K, EVEN_K), part, up_acc)
        if HAS_BIAS:
            acc += tl.load(bias + gate).to(tl.float32)[:, None]
            up_acc += tl.load(bias + up).to(tl.float32)[:, None]
        result = tl.where((n < N)[:, None], activate(acc, up_acc, ACTIVATION), 0.0)
        column = permuted_column(n) if MXFP4 else n
        to = h + (begin + m).to(tl.int64)[None, :] * H_ROW + column[:, None]
        tl.store(to, result.to(h.dtype.element_ty), mask=(m < rows)[None, :] & (n < H_ROW)[:, None])


@triton.jit(do_not_specialize=["most", "rows_of_x"])
def down_kernel(
    h, order, tiles, w, scales, bias, weights, parts, most, rows_of_x,
    K: tl.constexpr, N: tl.constexpr, ROW: tl.constexpr, TOP_K: tl.constexpr,
    MXFP4: tl.constexpr, HAS_BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, STAGES: tl.constexpr, ASM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """parts [top_k, rows_of_x, N] = (down(h) + bias) * weight, back in the pairs' places."""
    EVEN_K: tl.constexpr = K % BK == 0
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
        h_rows = h + position.to(tl.int64) * ROW
        w_row = expert.to(tl.int64) * N + tl.minimum(n, N - 1)
        acc = tl.zeros([BN, BM], tl.float32)
        if MXFP4:
            words, s_rows = w + w_row * (K // 8), scales + w_row * (K // 32)
            word = tl.arange(0, BK // 8)
            columns = word // 16 * 128 + word % 16
            scale = _scale_tile(s_rows, word, K)
            for k0 in tl.range(0, K, BK, num_stages=STAGES):
                w_tile = _word_tile(words, k0 // 8 + word, K, EVEN_K)
                for j in tl.static_range(8):
                    part = tl.load(h_rows[None, :] + (k0 + columns + 16 * j)[:, None])
                    plane = expand_mxfp4_plane(w_tile, scale, j, ASM)
                    acc = tl.dot(plane.to(part.dtype), part, acc)
                scale = _scale_tile(s_rows, (k0 + BK) // 8 + word, K)
            acc *= 18446744073709551616.0
        else:
            for k0 in tl.range(0, K, BK, num_stages=STAGES):
                k = k0 + tl.arange(0, BK)
                if EVEN_K:
                    part = tl.load(h_rows[None, :] + k[:, None])
                else:
                    part = tl.load(h_rows[None, :] + k[:, None], mask=(k < K)[:, None], other=0.0)
                acc = tl.dot(_plain_tile(w + w_row * K, k, K, EVEN_K), part, acc)
        if HAS_BIAS:
            acc += tl.load(bias + w_row).to(tl.float32)[:, None]
        pair = tl.load(order + position)
        acc *= tl.load(weights + pair)[None, :]
        place = (pair % TOP_K).to(tl.int64) * rows_of_x + pair // TOP_K
        tl.store(parts + place[None, :] * N + n[:, None], acc.to(parts.dtype.element_ty),
                 mask=(m < rows)[None, :] & (n < N)[:, None])  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def add_parts_kernel(
    parts, out, rows, N: tl.constexpr, TOP_K: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    """out [rows, N] = the sum of parts [TOP_K, rows, N] in ascending order."""
    BLOCKS: tl.constexpr = (N + BLOCK - 1) // BLOCK
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    n = tl.program_id(0) % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(TOP_K):
        total += tl.load(parts + (part * rows + row) * N + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + row * N + n, total.to(out.dtype.element_ty), mask=n < N)
