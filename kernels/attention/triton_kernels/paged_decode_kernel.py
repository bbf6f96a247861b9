"""Triton kernel of decode: a few query rows per sequence over a long cache, split along the keys.

Scores are computed transposed, ``[keys, rows]``. The keys fill the M dimension of the matrix unit;
the rows (query heads of one KV head times query rows of one sequence) are its N dimension, which
can be as small as 16. Both operands come from shared memory. A one-copy head is cut into blocks as
wide as the rotated part, so that each element is read once. Computing the products block by block
also keeps 512 dimensions from spilling.
"""

import triton
import triton.language as tl

from ...triton_launch import pdl_launch_dependents, pdl_wait
from .shared_steps import (
    add_sink,
    load_tile,
    online_softmax_step,
    scaled_scores,
    tile_addresses,
    tile_scales,
)
from .split_combine_kernel import sequence_splits


@triton.jit
def _load_query_blocks(
    q, seq, kv_head, row, HEADS: tl.constexpr, GROUP: tl.constexpr, Q_LEN: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Return the query transposed: a [BLOCK_DIM, rows] block for each part of the head."""
    row_index = (seq * Q_LEN + row // GROUP) * HEADS + kv_head * GROUP + row % GROUP
    q_row = q + row_index.to(tl.int64) * HEAD_DIM
    live = row < Q_LEN * GROUP
    blocks = ()
    for i in tl.static_range(NUM_BLOCKS):
        dims = i * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
        blocks = blocks + (
            tl.load(
                q_row[None, :] + dims[:, None],
                mask=live[None, :] & (dims < HEAD_DIM)[:, None],
                other=0.0,
            ),
        )
    return blocks


@triton.jit
def _key_rotation(
    cos, sin, key_weight, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, PAIRS: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Return the key weights of both halves of the pairs, and cos and sin of a tile's places.

    Keys are rotated by their place in the tile, and the query by its distance to the tile's start:
    the angle between them is the same, and the keys' table stays in registers.
    """
    dim = tl.arange(0, BLOCK_DIM)
    rotates = dim < PAIRS
    weight0 = tl.load(key_weight + dim, mask=rotates, other=1.0).to(tl.float32)
    weight1 = tl.load(key_weight + HEAD_DIM // 2 + dim, mask=rotates, other=1.0).to(tl.float32)
    at_key = tl.arange(0, TILE)[:, None] * PAIRS + dim[None, :]
    key_cos = tl.load(cos + at_key, mask=rotates[None, :], other=1.0)
    key_sin = tl.load(sin + at_key, mask=rotates[None, :], other=0.0)
    return weight0, weight1, key_cos, key_sin


@triton.jit
def _load_tree(tree, seq, row, BLOCK_ROWS: tl.constexpr, Q_LEN: tl.constexpr, GROUP: tl.constexpr):
    """Return the position of each query row, and the bits of the rows that it sees."""
    at = tree + (seq * Q_LEN + row // GROUP) * 2
    live = row < Q_LEN * GROUP
    return tl.load(at, mask=live, other=0), tl.load(at + 1, mask=live, other=0)


@triton.jit
def _tree_key_positions(tree, seq, pos, base, live, Q_LEN: tl.constexpr):
    """Return the position of each key; those of the step's rows lie in the order of the rows."""
    of_step = live & (pos >= base)
    at = tree + (seq * Q_LEN + tl.maximum(pos - base, 0)) * 2
    return tl.where(of_step, tl.load(at, mask=of_step, other=0), pos)


@triton.jit
def _one_copy_scores(
    scores, query, vectors, rotation, cos, sin, row_pos, key_pos, tile_start, base,
    PAIRS: tl.constexpr, BLOCK_DIM: tl.constexpr, NUM_BLOCKS: tl.constexpr, Q_LEN: tl.constexpr,
    TREE: tl.constexpr,
):  # fmt: skip
    """Add the scores of a tile whose keys are rebuilt from the cached vectors."""
    HALF: tl.constexpr = NUM_BLOCKS // 2
    weight0, weight1, key_cos, key_sin = rotation
    dtype = vectors[0].dtype
    dim = tl.arange(0, BLOCK_DIM)
    rotates = dim < PAIRS
    origin = tile_start
    if TREE:
        # Drafts lie behind their positions: in a tile that begins among them, keys may belong to
        # positions before it.
        origin = tile_start - tl.where(tile_start > base, Q_LEN, 0)
        at_key = tl.maximum(key_pos - origin, 0)[:, None] * PAIRS + dim[None, :]
        key_cos = tl.load(cos + at_key, mask=rotates[None, :], other=1.0)
        key_sin = tl.load(sin + at_key, mask=rotates[None, :], other=0.0)
    distance = tl.maximum(row_pos - origin, 0) * PAIRS
    at_query = distance[None, :] + dim[:, None]
    query_cos = tl.load(cos + at_query, mask=rotates[:, None], other=1.0)
    query_sin = tl.load(sin + at_query, mask=rotates[:, None], other=0.0)
    query0 = query[0].to(tl.float32)
    query1 = query[HALF].to(tl.float32)
    key0 = vectors[0].to(tl.float32) * weight0[None, :]
    key1 = vectors[HALF].to(tl.float32) * weight1[None, :]
    for i in tl.static_range(NUM_BLOCKS):
        if i % HALF != 0:
            scores = tl.dot(vectors[i], query[i], scores)
    scores = tl.dot(
        (key0 * key_cos - key1 * key_sin).to(dtype),
        (query0 * query_cos - query1 * query_sin).to(dtype),
        scores,
    )
    return tl.dot(
        (key1 * key_cos + key0 * key_sin).to(dtype),
        (query1 * query_cos + query0 * query_sin).to(dtype),
        scores,
    )


@triton.jit
def _load_vectors(
    tile, at, live, scales, dtype: tl.constexpr, BLOCK_DIM: tl.constexpr,
    NUM_BLOCKS: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """Return a tile of a one-copy cache: a [keys, BLOCK_DIM] block for each part of the head."""
    blocks = ()
    for i in tl.static_range(NUM_BLOCKS):
        blocks = blocks + (load_tile(tile + i * BLOCK_DIM, at, live[:, None], scales, dtype, FP8),)
    return blocks


@triton.jit
def _tile_scores(
    scores, query, k_tile, v_tile, at, live, dim, key_scales, value_scales, HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """Return scores plus those of a tile of keys, and the tile's values."""
    dtype: tl.constexpr = query.dtype
    kv_live = live[:, None]
    if BLOCK_DIM != HEAD_DIM:
        kv_live = kv_live & (dim < HEAD_DIM)[None, :]
    key = load_tile(k_tile, at, kv_live, key_scales, dtype, FP8)
    value = load_tile(v_tile, at, kv_live, value_scales, dtype, FP8)
    return tl.dot(key, query, scores), value


@triton.jit
def _seen_keys(pos, key_pos, live, row_pos, sees, base, WINDOW: tl.constexpr, TREE: tl.constexpr):
    """Return which rows see which keys of a tile, [keys, rows]."""
    if TREE:
        own = (sees[None, :] >> tl.maximum(pos - base, 0)[:, None]) & 1
        seen = live[:, None] & ((pos < base)[:, None] | (own == 1))
    else:
        seen = live[:, None] & (pos[:, None] <= row_pos[None, :])
    if WINDOW:
        seen = seen & (key_pos[:, None] > row_pos[None, :] - WINDOW)
    return seen


@triton.jit
def _add_values(sums, values, weights, decay, NUM_BLOCKS: tl.constexpr):
    """Return the weighted sums of values with those of one more tile, block by block."""
    new_sums = ()
    for i in tl.static_range(NUM_BLOCKS):
        new_sums = new_sums + (tl.dot(tl.trans(values[i]), weights, sums[i] * decay[None, :]),)
    return new_sums


@triton.jit
def _attend_keys(
    q, k, v, k_scales, v_scales, page_table, tree, cos, sin, key_weight, seq, kv_head, length,
    first_pos, key_begin, key_end, scale, softcap,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    NUM_BLOCKS: tl.constexpr, PAIRS: tl.constexpr, PAGE_SIZE: tl.constexpr, TILE: tl.constexpr,
    Q_LEN: tl.constexpr, BLOCK_ROWS: tl.constexpr, WINDOW: tl.constexpr, ONE_COPY: tl.constexpr,
    HAS_CAP: tl.constexpr, FP8: tl.constexpr, TREE: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of one sequence's rows of one KV head to the keys [key_begin, key_end)."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    dtype: tl.constexpr = q.dtype.element_ty
    row = tl.arange(0, BLOCK_ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    base = length - Q_LEN
    row_pos, sees = base + row // GROUP, row
    if TREE:
        row_pos, sees = _load_tree(tree, seq, row, BLOCK_ROWS, Q_LEN, GROUP)
    query = _load_query_blocks(
        q, seq, kv_head, row, HEADS, GROUP, Q_LEN, HEAD_DIM, BLOCK_DIM, NUM_BLOCKS
    )
    sums = ()
    for _ in tl.static_range(NUM_BLOCKS):
        sums = sums + (tl.zeros([BLOCK_DIM, BLOCK_ROWS], tl.float32),)
    if ONE_COPY:
        rotation = _key_rotation(cos, sin, key_weight, HEAD_DIM, BLOCK_DIM, PAIRS, TILE)
    top = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    visible_begin = tl.maximum(key_begin, length - Q_LEN - WINDOW + 1) if WINDOW else key_begin
    for tile_start in tl.range(key_begin, key_end, TILE, num_stages=STAGES):
        pos = tile_start + tl.arange(0, TILE)
        live = (pos >= visible_begin) & (pos < key_end)
        key_pos = pos
        if TREE:
            key_pos = _tree_key_positions(tree, seq, pos, base, live, Q_LEN)
        tile, offsets = tile_addresses(
            tile_start, live, first_pos, page_table, PAGE_SIZE, TILE, KV_HEADS * HEAD_DIM
        )
        tile += kv_head * HEAD_DIM
        at_kv = offsets[:, None] + dim[None, :]
        key_scales = tile_scales(
            k_scales, tile_start, live, first_pos, page_table, kv_head, PAGE_SIZE, TILE, KV_HEADS,
            FP8,
        )  # fmt: skip
        scores = tl.zeros([TILE, BLOCK_ROWS], tl.float32)
        if ONE_COPY:
            values = _load_vectors(
                k + tile, at_kv, live, key_scales, dtype, BLOCK_DIM, NUM_BLOCKS, FP8
            )
            scores = _one_copy_scores(
                scores, query, values, rotation, cos, sin, row_pos, key_pos, tile_start, base,
                PAIRS, BLOCK_DIM, NUM_BLOCKS, Q_LEN, TREE,
            )  # fmt: skip
        else:
            value_scales = tile_scales(
                v_scales, tile_start, live, first_pos, page_table, kv_head, PAGE_SIZE, TILE,
                KV_HEADS, FP8,
            )  # fmt: skip
            scores, value = _tile_scores(
                scores, query[0], k + tile, v + tile, at_kv, live, dim, key_scales, value_scales,
                HEAD_DIM, BLOCK_DIM, FP8,
            )  # fmt: skip
            values = (value,)
        seen = _seen_keys(pos, key_pos, live, row_pos, sees, base, WINDOW, TREE)
        scores = tl.where(seen, scaled_scores(scores, scale, softcap, HAS_CAP), float("-inf"))
        weights, decay, top, total = online_softmax_step(scores, top, total, 0)
        weights = weights.to(dtype)
        sums = _add_values(sums, values, weights, decay, NUM_BLOCKS)
    return top, total, sums


@triton.jit
def _store_partial(
    partial_sums, partial_stats, item, top, total, sums, ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Leave a split's unnormalized sums and statistics for the combine kernel."""
    block_row = tl.arange(0, BLOCK_ROWS)
    live = block_row < ROWS
    row = (tl.zeros([], tl.int64) + item) * ROWS + block_row
    tl.store(partial_stats + row * 2, top, mask=live)
    tl.store(partial_stats + row * 2 + 1, total, mask=live)
    for i in tl.static_range(NUM_BLOCKS):
        dims = i * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
        tl.store(
            partial_sums + row[None, :] * HEAD_DIM + dims[:, None],
            sums[i],
            mask=live[None, :] & (dims < HEAD_DIM)[:, None],
        )


@triton.jit
def _store_output(
    out, sinks, seq, kv_head, top, total, sums, HEADS: tl.constexpr, GROUP: tl.constexpr,
    Q_LEN: tl.constexpr, BLOCK_ROWS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, NUM_BLOCKS: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    """Normalize the sums of a sequence that is not split, and write them."""
    block_row = tl.arange(0, BLOCK_ROWS)
    if HAS_SINKS:
        decay, total = add_sink(sinks + kv_head * GROUP + block_row % GROUP, top, total)
    else:
        decay = tl.full([BLOCK_ROWS], 1.0, tl.float32)
    # Rows without a visible key have a total of 0; they become 0.
    inverse = decay / tl.where(total > 0, total, 1.0)
    row = (seq * Q_LEN + block_row // GROUP).to(tl.int64) * HEADS
    row = row + kv_head * GROUP + block_row % GROUP
    for i in tl.static_range(NUM_BLOCKS):
        dims = i * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
        tl.store(
            out + row[None, :] * HEAD_DIM + dims[:, None],
            (sums[i] * inverse[None, :]).to(out.dtype.element_ty),
            mask=(block_row < Q_LEN * GROUP)[None, :] & (dims < HEAD_DIM)[:, None],
        )


@triton.jit(do_not_specialize=["sequences"])
def paged_decode_kernel(
    q, k, v, k_scales, v_scales, page_table, seq_lens, first_pos, tree, cos, sin, key_weight, sinks,
    out, partial_sums, partial_stats, scale, softcap, sequences, page_table_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    NUM_BLOCKS: tl.constexpr, PAIRS: tl.constexpr, PAGE_SIZE: tl.constexpr, TILE: tl.constexpr,
    Q_LEN: tl.constexpr, BLOCK_ROWS: tl.constexpr, WINDOW: tl.constexpr, SPLIT: tl.constexpr,
    SHORT_SPLIT: tl.constexpr, PADDED_SEQUENCES: tl.constexpr, ONE_COPY: tl.constexpr,
    HAS_FIRST: tl.constexpr, HAS_SINKS: tl.constexpr, HAS_CAP: tl.constexpr, FP8: tl.constexpr,
    TREE: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Stride over work items (sequence, split, KV head), numbered densely over the batch."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    seqs = tl.arange(0, PADDED_SEQUENCES)
    _, _, _, counts = sequence_splits(
        seq_lens, seqs, seqs < sequences, Q_LEN, WINDOW, SPLIT, SHORT_SPLIT
    )
    ends = tl.cumsum(counts, 0)
    items = tl.sum(counts, 0) * KV_HEADS
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        kv_head = item % KV_HEADS
        index = item // KV_HEADS
        seq = tl.sum((ends <= index).to(tl.int32), 0)
        length, low, size, _count = sequence_splits(
            seq_lens, seq, True, Q_LEN, WINDOW, SPLIT, SHORT_SPLIT
        )
        first = 0
        if HAS_FIRST:
            first = tl.load(first_pos + seq)
        key_begin = low // TILE * TILE
        key_end = length
        if SPLIT:
            split = index - tl.sum(tl.where(seqs < seq, counts, 0), 0) + low // size
            key_begin = tl.maximum(key_begin, split * size)
            key_end = tl.minimum(length, (split + 1) * size)
        top, total, sums = _attend_keys(
            q, k, v, k_scales, v_scales, page_table + seq.to(tl.int64) * page_table_stride, tree,
            cos, sin, key_weight, seq, kv_head, length, first, key_begin, key_end, scale, softcap,
            HEADS, KV_HEADS, HEAD_DIM, BLOCK_DIM, NUM_BLOCKS, PAIRS, PAGE_SIZE, TILE, Q_LEN,
            BLOCK_ROWS, WINDOW, ONE_COPY, HAS_CAP, FP8, TREE, STAGES,
        )  # fmt: skip
        if SPLIT:
            _store_partial(
                partial_sums, partial_stats, item, top, total, sums, Q_LEN * GROUP, BLOCK_ROWS,
                HEAD_DIM, BLOCK_DIM, NUM_BLOCKS,
            )  # fmt: skip
        else:
            _store_output(
                out, sinks, seq, kv_head, top, total, sums, HEADS, GROUP, Q_LEN, BLOCK_ROWS,
                HEAD_DIM, BLOCK_DIM, NUM_BLOCKS, HAS_SINKS,
            )  # fmt: skip
