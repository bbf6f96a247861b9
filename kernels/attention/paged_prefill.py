"""Paged attention of chunks of several prompts to a cache that already holds their keys.

Same caches as ``decode``. A program takes ``tokens`` query tokens of one sequence with all query
heads of one KV head as rows, so that a key is read once for the whole group. Tiles of keys outside
the causal triangle or the window are not visited.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..triton_launch import next_power_of_2, require, require_tensor, require_tile
from .attention_shapes import PagedShape, paged_shape
from .hopper import hopper_one_copy, hopper_prefill
from .one_copy_keys import OneCopy
from .paged_decode import tile_addresses
from .split_kv import LOG2E


@dataclass(frozen=True, slots=True)
class PrefillConfig:
    """rows: query rows of a program (tokens times the group). tile: keys per step. hopper: through
    ``hopper_one_copy`` or ``hopper_prefill`` where that fits; the rest then says what runs
    elsewhere."""

    query_rows: int = 128
    tile: int = 64
    warps: int = 8
    stages: int = 3
    use_hopper: bool = False


@triton.jit(do_not_specialize=["sequences"])
def _paged_prefill(
    q, k, v, page_table, query_starts, seq_lens, first_pos, cos, sin, key_weight, sinks, out, scale,
    sequences, page_table_stride,
    HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
    PAIRS: tl.constexpr, PS: tl.constexpr, BM: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, SP: tl.constexpr, ONE_COPY: tl.constexpr, HAS_FIRST: tl.constexpr,
    HAS_SINKS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    G: tl.constexpr = HQ // HK
    h = tl.program_id(1)
    ss = tl.arange(0, SP)
    begins = tl.load(query_starts + ss, mask=ss < sequences, other=0)
    counts = tl.load(query_starts + ss + 1, mask=ss < sequences, other=0) - begins
    tiles = tl.where(ss < sequences, tl.cdiv(counts, BT), 0)
    ends = tl.cumsum(tiles, 0)
    index = tl.program_id(0)
    if index < tl.sum(tiles, 0):
        s = tl.sum((ends <= index).to(tl.int32), 0)
        begin = tl.load(query_starts + s)
        count = tl.load(query_starts + s + 1) - begin
        length = tl.load(seq_lens + s)
        # The last tiles see the most keys: they go first, so that the launch ends evenly.
        order = index - tl.sum(tl.where(ss < s, tiles, 0), 0)
        t0 = (tl.cdiv(count, BT) - 1 - order) * BT
        first = 0
        if HAS_FIRST:
            first = tl.load(first_pos + s)
        m = tl.arange(0, BM)
        c = tl.arange(0, C)
        p = tl.arange(0, P)
        token = t0 + m // G
        row_live = (token < count) & (m < BT * G)
        row_pos = length - count + token
        row = ((begin + token).to(tl.int64) * HQ + h * G + m % G) * D
        dims = c < D
        if ONE_COPY:
            dims = dims & (c % (D // 2) >= PAIRS)
        query = tl.load(q + row[:, None] + c[None, :],
                        mask=row_live[:, None] & dims[None, :], other=0.0)  # fmt: skip
        rotates = p < PAIRS
        if ONE_COPY:
            turning = row_live[:, None] & rotates[None, :]
            q0 = tl.load(q + row[:, None] + p[None, :], mask=turning, other=0.0).to(tl.float32)
            q1 = tl.load(q + row[:, None] + D // 2 + p[None, :],
                         mask=turning, other=0.0).to(tl.float32)  # fmt: skip
            q_at = row_pos[:, None] * PAIRS + p[None, :]
            q_cos = tl.load(cos + q_at, mask=turning, other=0.0)
            q_sin = tl.load(sin + q_at, mask=turning, other=0.0)
            query0 = (q0 * q_cos - q1 * q_sin).to(q.dtype.element_ty)
            query1 = (q1 * q_cos + q0 * q_sin).to(q.dtype.element_ty)
            w0 = tl.load(key_weight + p, mask=rotates, other=0.0).to(tl.float32)[None, :]
            w1 = tl.load(key_weight + D // 2 + p, mask=rotates, other=0.0)
            w1 = w1.to(tl.float32)[None, :]
        acc = tl.zeros([BM, C], tl.float32)
        top = tl.full([BM], float("-inf"), tl.float32)
        total = tl.zeros([BM], tl.float32)
        k_end = tl.minimum(length, length - count + t0 + BT)
        k_begin = 0
        if WINDOW:
            k_begin = tl.maximum(0, length - count + t0 - WINDOW + 1) // BN * BN
        # A tile's first keys may lie before the window's first page: they are not read.
        k_low = tl.maximum(k_begin, first)
        if WINDOW:
            k_low = tl.maximum(k_low, length - count + t0 - WINDOW + 1)
        for k0 in tl.range(k_begin, k_end, BN, num_stages=STAGES):
            pos = k0 + tl.arange(0, BN)
            live = (pos >= k_low) & (pos < k_end)
            tile, at = tile_addresses(
                k0, live, first, page_table + s.to(tl.int64) * page_table_stride, PS, BN, HK * D
            )
            tile += h * D
            at_kv = at[:, None] + c[None, :]
            kv_live = live[:, None] if C == D else live[:, None] & (c < D)[None, :]
            key = tl.load(k + tile + at_kv, mask=kv_live, other=0.0)
            if ONE_COPY:
                turning_k = live[:, None] & rotates[None, :]
                at_p = at[:, None] + p[None, :]
                n0 = tl.load(k + tile + at_p, mask=turning_k, other=0.0).to(tl.float32) * w0
                n1 = tl.load(k + tile + D // 2 + at_p, mask=turning_k, other=0.0)
                n1 = n1.to(tl.float32) * w1
                k_at = pos[:, None] * PAIRS + p[None, :]
                k_cos = tl.load(cos + k_at, mask=turning_k, other=0.0)
                k_sin = tl.load(sin + k_at, mask=turning_k, other=0.0)
                key0 = (n0 * k_cos - n1 * k_sin).to(k.dtype.element_ty)
                key1 = (n1 * k_cos + n0 * k_sin).to(k.dtype.element_ty)
                scores = tl.dot(query, tl.trans(key))
                scores = tl.dot(query0, tl.trans(key0), scores)
                scores = tl.dot(query1, tl.trans(key1), scores)
                value = key
            else:
                scores = tl.dot(query, tl.trans(key))
                value = tl.load(v + tile + at_kv, mask=kv_live, other=0.0)
            seen = live[None, :] & (pos[None, :] <= row_pos[:, None])
            if WINDOW:
                seen = seen & (pos[None, :] > row_pos[:, None] - WINDOW)
            scores = tl.where(seen, scores * (scale * LOG2E), float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))
            shift = tl.where(new_top == float("-inf"), 0.0, new_top)
            weights = tl.exp2(scores - shift[:, None])
            decay = tl.exp2(top - shift)
            total = total * decay + tl.sum(weights, 1)
            top = new_top
            acc = tl.dot(weights.to(k.dtype.element_ty), value, acc * decay[:, None])
        if HAS_SINKS:
            sink = tl.load(sinks + h * G + m % G).to(tl.float32) * LOG2E
            new_top = tl.maximum(top, sink)
            decay = tl.exp2(top - new_top)
            total = total * decay + tl.exp2(sink - new_top)
            acc = acc * decay[:, None]
        acc = acc / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(out + row[:, None] + c[None, :], acc.to(out.dtype.element_ty),
                 mask=row_live[:, None] & (c < D)[None, :])  # fmt: skip


def paged_prefill(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    page_table: torch.Tensor,
    query_starts: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    window: int = 0,
    scale: float = 1.0,
    first_pos: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    config: PrefillConfig | None = None,
) -> torch.Tensor:
    """Attention of chunks of sequences to their paged caches, the chunks' own keys included.

    Args:
        q: [tokens, heads, head_dim]; rotated, save for one-copy layers (see ``paged_decode``).
        query_starts: int32 [sequences + 1], where each sequence's rows of q start.
        seq_lens: int32 [sequences], tokens in the cache, the chunk's own included.
        The rest as in ``paged_decode``.

    Returns:
        ``out``, shaped like q.

    Raises:
        ValueError: a shape, dtype or option that does not fit.
    """
    shape = paged_shape(q, key_cache, value_cache, page_table, seq_lens, out, one_copy)
    require_tensor("query_starts", query_starts, torch.int32, 1)
    sequences, head_dim = shape.sequences, shape.head_dim
    require(
        len(query_starts) == sequences + 1,
        f"{sequences} page_table rows, {len(query_starts)} query_starts",
    )
    config = config or default_prefill_config(head_dim)
    if config.use_hopper and _by_hopper(
        shape, q, key_cache, value_cache, page_table, query_starts, seq_lens, out,
        window, scale, first_pos, sinks, one_copy,
    ):  # fmt: skip
        return out
    require(
        config.query_rows >= shape.group,
        f"{config.query_rows} rows hold no group of {shape.group} heads",
    )
    require_tile("rows", config.query_rows)
    require_tile("tile", config.tile)
    block = config.query_rows // shape.group
    grid = (-(-shape.rows // block) + sequences, shape.kv_heads)  # each may end in a part of one
    unused = seq_lens
    pairs = one_copy.cos.shape[1] if one_copy else 0
    _paged_prefill[grid](
        q, key_cache, key_cache if value_cache is None else value_cache, page_table, query_starts, seq_lens,
        unused if first_pos is None else first_pos,
        one_copy.cos if one_copy else unused, one_copy.sin if one_copy else unused,
        one_copy.key_weight if one_copy else unused, unused if sinks is None else sinks,
        out, scale, sequences, page_table.stride(0),
        HQ=shape.heads, HK=shape.kv_heads, D=head_dim, C=max(16, next_power_of_2(head_dim)),
        P=max(16, next_power_of_2(pairs)), PAIRS=pairs, PS=shape.page_size, BM=config.query_rows,
        BT=block, BN=config.tile, WINDOW=window, SP=max(16, next_power_of_2(sequences)),
        ONE_COPY=one_copy is not None, HAS_FIRST=first_pos is not None, HAS_SINKS=sinks is not None,
        STAGES=config.stages, num_warps=config.warps,
    )  # fmt: skip
    return out


def _by_hopper(
    shape: PagedShape, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor | None,
    page_table: torch.Tensor, query_starts: torch.Tensor, seq_lens: torch.Tensor, out: torch.Tensor,
    window: int, scale: float, first_pos: torch.Tensor | None, sinks: torch.Tensor | None,
    one_copy: OneCopy | None,
) -> bool:  # fmt: skip
    """Launch the CUDA C++ kernel; False where none fits the call."""
    if one_copy is not None:
        kernel = hopper_one_copy.kernel_for(
            shape, q, one_copy, window=window, sinks=sinks, scale=scale
        )
        if kernel is None:
            return False
        hopper_one_copy.launch(kernel, shape, q, keys, page_table, seq_lens, one_copy, scale=scale,
                               pdl=False,
                            starts=query_starts, out=out)  # fmt: skip
        return True
    kernel = hopper_prefill.kernel_for(shape, q, sinks=sinks, scale=scale)
    if kernel is None or values is None:
        return False
    hopper_prefill.launch(kernel, shape, q, keys, values, page_table, query_starts, seq_lens, first_pos, out,
                       window=window, scale=scale)  # fmt: skip
    return True


def default_prefill_config(head_dim: int) -> PrefillConfig:
    """Measured on an H100 (docs/log-kernels.md)."""
    if head_dim > 256:
        return PrefillConfig(64, 32, 8, 2, use_hopper=True)
    return PrefillConfig(
        stages=2 if head_dim > 128 else 3, use_hopper=head_dim == hopper_prefill.HEAD_DIM
    )
