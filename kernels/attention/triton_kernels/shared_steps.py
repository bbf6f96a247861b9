"""Steps that the decode and the prefill kernel share: page addressing, online softmax and sinks."""

import triton
import triton.language as tl

from ...quantized.fp8_codes import fp8_values

# Scores are kept times log2(e), so that exp2 takes the place of exp.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_addresses(
    tile_start, live, first_pos, page_table,
    PAGE_SIZE: tl.constexpr, TILE: tl.constexpr, TOKEN_STRIDE: tl.constexpr,
):  # fmt: skip
    """Return the first element of a tile of keys (int64) and each key's distance from it.

    If every tile lies in one page, one table entry is read; otherwise one for each key.
    """
    key = tl.arange(0, TILE)
    if PAGE_SIZE % TILE == 0:
        page = tl.load(page_table + (tile_start - first_pos) // PAGE_SIZE).to(tl.int64)
        base = (page * PAGE_SIZE + tile_start % PAGE_SIZE) * TOKEN_STRIDE
        offsets = key * TOKEN_STRIDE
    else:
        entry = (tile_start + key - first_pos) // PAGE_SIZE
        pages = tl.load(page_table + entry, mask=live, other=0).to(tl.int64)
        base = tl.full([], 0, tl.int64)
        offsets = (pages * PAGE_SIZE + (tile_start + key) % PAGE_SIZE) * TOKEN_STRIDE
    return base, offsets


@triton.jit
def tile_scales(
    scales, tile_start, live, first_pos, page_table, kv_head,
    PAGE_SIZE: tl.constexpr, TILE: tl.constexpr, KV_HEADS: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """Return the scale of each key of a tile, [TILE]; not used unless the pages are in FP8."""
    found = tl.full([TILE], 1.0, tl.float32)
    if FP8:
        key = tile_start + tl.arange(0, TILE)
        page = tl.load(page_table + (key - first_pos) // PAGE_SIZE, mask=live, other=0)
        found = tl.load(scales + page.to(tl.int64) * KV_HEADS + kv_head)
    return found


@triton.jit
def load_tile(pages, at, live, scales, dtype: tl.constexpr, FP8: tl.constexpr):
    """Return a tile [TILE, dims] of keys or values; of pages in FP8, times the keys' scales."""
    tile = tl.load(pages + at, mask=live, other=0)
    if FP8:
        tile = (fp8_values(tile) * scales[:, None]).to(dtype)
    return tile


@triton.jit
def scaled_scores(scores, scale, softcap, HAS_CAP: tl.constexpr):
    """Return products of queries and keys as scores: scaled, capped, and times log2(e)."""
    if HAS_CAP:
        # tanh(u) = 1 - 2 / (exp(2u) + 1) does not overflow to NaN at either end.
        ratio = scores * (scale / softcap)
        scaled = softcap * LOG2E * (1.0 - 2.0 / (tl.exp(2.0 * ratio) + 1.0))
    else:
        scaled = scores * (scale * LOG2E)
    return scaled


@triton.jit
def online_softmax_step(scores, top, total, AXIS: tl.constexpr):
    """Take a tile of scores into a running softmax.

    ``top`` is each row's largest score so far, ``total`` the sum of its weights relative to that.
    ``AXIS`` is the axis of the keys. Returns the tile's weights, the factor by which sums over
    earlier tiles shrink, and the new top and total.
    """
    new_top = tl.maximum(top, tl.max(scores, AXIS))
    # A row that has seen no key yet has top = -inf: shift by 0 then, not by -inf.
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp2(scores - tl.expand_dims(shift, AXIS))
    decay = tl.exp2(top - shift)
    total = total * decay + tl.sum(weights, AXIS)
    return weights, decay, new_top, total


@triton.jit
def add_sink(sinks, top, total):
    """Take each row's sink, a logit without a value, into its softmax.

    ``sinks`` points to the sink of each row. Returns the factor by which the sums over the keys
    shrink, and the new total.
    """
    sink = tl.load(sinks).to(tl.float32) * LOG2E
    new_top = tl.maximum(top, sink)
    decay = tl.exp2(top - new_top)
    return decay, total * decay + tl.exp2(sink - new_top)
