"""Triton kernel of prefill: chunks of several prompts over a cache that already holds their keys.

A program takes a tile of query tokens of one sequence. Its rows are these tokens times all query
heads of one KV head, so that a key is read once for the whole group. Tiles of keys outside the
causal triangle or the window are not visited.
"""

import triton
import triton.language as tl

from .shared_steps import (
    add_sink,
    load_tile,
    online_softmax_step,
    scaled_scores,
    tile_addresses,
    tile_scales,
)


@triton.jit
def _rotated_query(
    q, row, live, row_pos, cos, sin, HEAD_DIM: tl.constexpr, PAIRS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):  # fmt: skip
    """Return both halves of the query's pairs, rotated by the rows' positions."""
    pair = tl.arange(0, BLOCK_PAIRS)
    rotates = live[:, None] & (pair < PAIRS)[None, :]
    at_pair = row[:, None] + pair[None, :]
    half0 = tl.load(q + at_pair, mask=rotates, other=0.0).to(tl.float32)
    half1 = tl.load(q + row[:, None] + HEAD_DIM // 2 + pair[None, :], mask=rotates, other=0.0)
    half1 = half1.to(tl.float32)
    at = row_pos[:, None] * PAIRS + pair[None, :]
    row_cos = tl.load(cos + at, mask=rotates, other=0.0)
    row_sin = tl.load(sin + at, mask=rotates, other=0.0)
    rotated0 = (half0 * row_cos - half1 * row_sin).to(q.dtype.element_ty)
    rotated1 = (half1 * row_cos + half0 * row_sin).to(q.dtype.element_ty)
    return rotated0, rotated1


@triton.jit
def _pair_weights(
    key_weight, HEAD_DIM: tl.constexpr, PAIRS: tl.constexpr, BLOCK_PAIRS: tl.constexpr
):  # fmt: skip
    """Return the key weights of both halves of the rotated pairs."""
    pair = tl.arange(0, BLOCK_PAIRS)
    rotates = pair < PAIRS
    weight0 = tl.load(key_weight + pair, mask=rotates, other=0.0).to(tl.float32)[None, :]
    weight1 = tl.load(key_weight + HEAD_DIM // 2 + pair, mask=rotates, other=0.0)
    return weight0, weight1.to(tl.float32)[None, :]


@triton.jit
def _rebuilt_pairs(
    vectors, offsets, live, pos, cos, sin, weight0, weight1, scales, dtype: tl.constexpr,
    HEAD_DIM: tl.constexpr, PAIRS: tl.constexpr, BLOCK_PAIRS: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """Return both halves of the keys' rotated pairs, rebuilt from the cached vectors."""
    pair = tl.arange(0, BLOCK_PAIRS)
    rotates = live[:, None] & (pair < PAIRS)[None, :]
    at_pair = offsets[:, None] + pair[None, :]
    half0 = load_tile(vectors, at_pair, rotates, scales, dtype, FP8).to(tl.float32) * weight0
    half1 = load_tile(vectors + HEAD_DIM // 2, at_pair, rotates, scales, dtype, FP8)
    half1 = half1.to(tl.float32) * weight1
    at = pos[:, None] * PAIRS + pair[None, :]
    key_cos = tl.load(cos + at, mask=rotates, other=0.0)
    key_sin = tl.load(sin + at, mask=rotates, other=0.0)
    key0 = (half0 * key_cos - half1 * key_sin).to(dtype)
    key1 = (half1 * key_cos + half0 * key_sin).to(dtype)
    return key0, key1


@triton.jit
def _key_range(
    length, first_row_pos, first_pos, BLOCK_TOKENS: tl.constexpr, TILE: tl.constexpr,
    WINDOW: tl.constexpr,
):  # fmt: skip
    """Return a query tile's first tile of keys, and the range of keys that are read."""
    key_end = tl.minimum(length, first_row_pos + BLOCK_TOKENS)
    key_begin = 0
    if WINDOW:
        key_begin = tl.maximum(0, first_row_pos - WINDOW + 1) // TILE * TILE
    # A tile's first keys may lie before the window's first page: they are not read.
    visible_begin = tl.maximum(key_begin, first_pos)
    if WINDOW:
        visible_begin = tl.maximum(visible_begin, first_row_pos - WINDOW + 1)
    return key_begin, visible_begin, key_end


@triton.jit
def _attend_keys(
    query, query0, query1, weight0, weight1, k, v, k_scales, v_scales, page_table, cos, sin,
    row_pos, kv_head, first_pos, key_begin, visible_begin, key_end, scale, softcap,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr, PAIRS: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, TILE: tl.constexpr, WINDOW: tl.constexpr, ONE_COPY: tl.constexpr,
    HAS_CAP: tl.constexpr, FP8: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of a tile of query rows to the keys [visible_begin, key_end)."""
    dtype: tl.constexpr = query.dtype
    dim = tl.arange(0, BLOCK_DIM)
    acc = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    top = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    for tile_start in tl.range(key_begin, key_end, TILE, num_stages=STAGES):
        pos = tile_start + tl.arange(0, TILE)
        live = (pos >= visible_begin) & (pos < key_end)
        tile, offsets = tile_addresses(
            tile_start, live, first_pos, page_table, PAGE_SIZE, TILE, KV_HEADS * HEAD_DIM
        )
        tile += kv_head * HEAD_DIM
        at_kv = offsets[:, None] + dim[None, :]
        kv_live = live[:, None]
        if BLOCK_DIM != HEAD_DIM:
            kv_live = kv_live & (dim < HEAD_DIM)[None, :]
        key_scales = tile_scales(
            k_scales, tile_start, live, first_pos, page_table, kv_head, PAGE_SIZE, TILE, KV_HEADS,
            FP8,
        )  # fmt: skip
        key = load_tile(k + tile, at_kv, kv_live, key_scales, dtype, FP8)
        if ONE_COPY:
            key0, key1 = _rebuilt_pairs(
                k + tile, offsets, live, pos, cos, sin, weight0, weight1, key_scales, dtype,
                HEAD_DIM, PAIRS, BLOCK_PAIRS, FP8,
            )  # fmt: skip
            # The query is 0 at the pairs' dimensions: the first product leaves them out.
            scores = tl.dot(query, tl.trans(key))
            scores = tl.dot(query0, tl.trans(key0), scores)
            scores = tl.dot(query1, tl.trans(key1), scores)
            value = key
        else:
            scores = tl.dot(query, tl.trans(key))
            value_scales = tile_scales(
                v_scales, tile_start, live, first_pos, page_table, kv_head, PAGE_SIZE, TILE,
                KV_HEADS, FP8,
            )  # fmt: skip
            value = load_tile(v + tile, at_kv, kv_live, value_scales, dtype, FP8)
        seen = live[None, :] & (pos[None, :] <= row_pos[:, None])
        if WINDOW:
            seen = seen & (pos[None, :] > row_pos[:, None] - WINDOW)
        scores = tl.where(seen, scaled_scores(scores, scale, softcap, HAS_CAP), float("-inf"))
        weights, decay, top, total = online_softmax_step(scores, top, total, 1)
        acc = tl.dot(weights.to(dtype), value, acc * decay[:, None])
    return top, total, acc


@triton.jit
def _attend_query_tile(
    q, k, v, k_scales, v_scales, query_starts, page_table, seq_lens, first_pos, cos, sin,
    key_weight, sinks, out, scale, softcap, seq, tile_index, kv_head, page_table_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr, PAIRS: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, TILE: tl.constexpr,
    WINDOW: tl.constexpr, ONE_COPY: tl.constexpr, HAS_FIRST: tl.constexpr,
    HAS_SINKS: tl.constexpr, HAS_CAP: tl.constexpr, FP8: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of one tile of a sequence's query tokens, counted from the last tile."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    begin = tl.load(query_starts + seq)
    count = tl.load(query_starts + seq + 1) - begin
    length = tl.load(seq_lens + seq)
    first_token = (tl.cdiv(count, BLOCK_TOKENS) - 1 - tile_index) * BLOCK_TOKENS
    first = 0
    if HAS_FIRST:
        first = tl.load(first_pos + seq)
    block_row = tl.arange(0, BLOCK_ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    token = first_token + block_row // GROUP
    row_live = (token < count) & (block_row < BLOCK_TOKENS * GROUP)
    row_pos = length - count + token
    row = (begin + token).to(tl.int64) * HEADS + kv_head * GROUP + block_row % GROUP
    row = row * HEAD_DIM
    dims = dim < HEAD_DIM
    if ONE_COPY:
        dims = dims & (dim % (HEAD_DIM // 2) >= PAIRS)
    query = tl.load(
        q + row[:, None] + dim[None, :], mask=row_live[:, None] & dims[None, :], other=0.0
    )
    query0, query1, weight0, weight1 = query, query, 0, 0
    if ONE_COPY:
        query0, query1 = _rotated_query(
            q, row, row_live, row_pos, cos, sin, HEAD_DIM, PAIRS, BLOCK_PAIRS
        )
        weight0, weight1 = _pair_weights(key_weight, HEAD_DIM, PAIRS, BLOCK_PAIRS)
    key_begin, visible_begin, key_end = _key_range(
        length, length - count + first_token, first, BLOCK_TOKENS, TILE, WINDOW
    )
    top, total, acc = _attend_keys(
        query, query0, query1, weight0, weight1, k, v, k_scales, v_scales,
        page_table + seq.to(tl.int64) * page_table_stride, cos, sin, row_pos, kv_head, first,
        key_begin, visible_begin, key_end, scale, softcap,
        KV_HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_PAIRS, PAIRS, PAGE_SIZE, BLOCK_ROWS, TILE, WINDOW,
        ONE_COPY, HAS_CAP, FP8, STAGES,
    )  # fmt: skip
    if HAS_SINKS:
        decay, total = add_sink(sinks + kv_head * GROUP + block_row % GROUP, top, total)
        acc = acc * decay[:, None]
    # Rows without a visible key have a total of 0; they become 0.
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out + row[:, None] + dim[None, :],
        acc.to(out.dtype.element_ty),
        mask=row_live[:, None] & (dim < HEAD_DIM)[None, :],
    )


@triton.jit(do_not_specialize=["sequences"])
def paged_prefill_kernel(
    q, k, v, k_scales, v_scales, page_table, query_starts, seq_lens, first_pos, cos, sin,
    key_weight, sinks, out, scale, softcap, sequences, page_table_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr, PAIRS: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, TILE: tl.constexpr,
    WINDOW: tl.constexpr, PADDED_SEQUENCES: tl.constexpr, ONE_COPY: tl.constexpr,
    HAS_FIRST: tl.constexpr, HAS_SINKS: tl.constexpr, HAS_CAP: tl.constexpr,
    FP8: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with one tile of query tokens and one KV head per program.

    The grid has room for as many tiles as there can be; programs past the last tile do nothing.
    """
    kv_head = tl.program_id(1)
    seqs = tl.arange(0, PADDED_SEQUENCES)
    begins = tl.load(query_starts + seqs, mask=seqs < sequences, other=0)
    counts = tl.load(query_starts + seqs + 1, mask=seqs < sequences, other=0) - begins
    tiles = tl.where(seqs < sequences, tl.cdiv(counts, BLOCK_TOKENS), 0)
    ends = tl.cumsum(tiles, 0)
    index = tl.program_id(0)
    if index < tl.sum(tiles, 0):
        seq = tl.sum((ends <= index).to(tl.int32), 0)
        # The last tiles see the most keys: they go first, so that the launch ends evenly.
        tile_index = index - tl.sum(tl.where(seqs < seq, tiles, 0), 0)
        _attend_query_tile(
            q, k, v, k_scales, v_scales, query_starts, page_table, seq_lens, first_pos, cos, sin,
            key_weight, sinks, out, scale, softcap, seq, tile_index, kv_head, page_table_stride,
            HEADS, KV_HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_PAIRS, PAIRS, PAGE_SIZE, BLOCK_ROWS,
            BLOCK_TOKENS, TILE, WINDOW, ONE_COPY, HAS_FIRST, HAS_SINKS, HAS_CAP, FP8, STAGES,
        )  # fmt: skip
