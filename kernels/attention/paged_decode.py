"""Paged decode attention: a few query rows per sequence over a long cache, split along the keys.

Caches, bf16 in production, any float type in tests, are ``[pages, page_size, kv_heads, head_dim]``:
keys and values, or one copy of both (see ``onecopy``).

Scores are computed transposed, ``[keys, rows]``: keys fill the matrix unit's M, and the rows (query
heads of one KV head times query rows of one sequence) its N, as few as 16. Both operands come from
shared memory. A one-copy head is cut into pieces as wide as the rotating part, so that each element
is read once; the products over the pieces keep 512 dimensions from spilling.

Splits start at absolute multiples of a number of tokens, tiles at multiples of the tile: the result
of a sequence depends neither on the others nor on its pages; nor on rows verified beside it, save
where those cross the length from which splits are long.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..triton_launch import (
    multiprocessor_count,
    next_power_of_2,
    pdl_launch_dependents,
    pdl_options,
    pdl_wait,
    require,
    require_tile,
)
from .attention_shapes import PagedShape, paged_shape
from .hopper.hopper_one_copy import kernel_for, launch
from .one_copy_blocks import one_copy_block_width
from .one_copy_keys import OneCopy
from .split_kv import LOG2E, combine_splits, decode_workspace_size, sequence_splits


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """Launch shape. tile: keys per step. split: tokens per split, 0 for none. short: tokens per
    split of short sequences (see ``splits``), 0 for ``split``. per_sm: programs a multiprocessor is
    given when splitting. hopper: one copy through ``hopper_one_copy`` where that
    fits; the rest then says what runs elsewhere."""

    tile: int = 64
    split_tokens: int = 0
    warps: int = 4
    stages: int = 3
    programs_per_sm: int = 1
    use_hopper: bool = False
    short_split_tokens: int = 0


@triton.jit
def tile_addresses(
    k0, live, first, page_table, PS: tl.constexpr, BN: tl.constexpr, ROW: tl.constexpr
):  # fmt: skip
    """Where a tile's keys lie: the first key's element (int64) and each key's distance to it.

    One page_table entry where a tile lies in one page, else one per key.
    """
    at = tl.arange(0, BN)
    if PS % BN == 0:
        page = tl.load(page_table + (k0 - first) // PS).to(tl.int64)
        tile = (page * PS + k0 % PS) * ROW
        offsets = at * ROW
    else:
        pages = tl.load(page_table + (k0 + at - first) // PS, mask=live, other=0).to(tl.int64)
        tile = tl.full([], 0, tl.int64)
        offsets = (pages * PS + (k0 + at) % PS) * ROW
    return tile, offsets


@triton.jit
def _decode_item(
    q, k, v, page_table, cos, sin, key_weight, s, h, length, first, k_begin, k_end, scale,
    HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, NC: tl.constexpr,
    PAIRS: tl.constexpr, PS: tl.constexpr, BN: tl.constexpr, QLEN: tl.constexpr, N: tl.constexpr,
    WINDOW: tl.constexpr, ONE_COPY: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of one sequence's rows of one KV head to the keys [k_begin, k_end)."""
    G: tl.constexpr = HQ // HK
    H2: tl.constexpr = NC // 2
    n = tl.arange(0, N)
    c = tl.arange(0, C)
    row_pos = length - QLEN + n // G
    q_row = q + ((s * QLEN + n // G) * HQ + h * G + n % G).to(tl.int64) * D
    q_live = n < QLEN * G
    qs = ()
    accs = ()
    for i in tl.static_range(NC):
        dims = i * C + c
        qs = qs + (
            tl.load(
                q_row[None, :] + dims[:, None],
                mask=q_live[None, :] & (dims < D)[:, None],
                other=0.0,
            ),
        )
        accs = accs + (tl.zeros([C, N], tl.float32),)
    if ONE_COPY:
        rotates = c < PAIRS
        w0 = tl.load(key_weight + c, mask=rotates, other=1.0).to(tl.float32)
        w1 = tl.load(key_weight + D // 2 + c, mask=rotates, other=1.0).to(tl.float32)
        # Keys are rotated by their place in the tile and the query by its distance to the tile's
        # start: the same angle in all, and the keys' page_table stays in registers.
        at_k = tl.arange(0, BN)[:, None] * PAIRS + c[None, :]
        k_cos = tl.load(cos + at_k, mask=rotates[None, :], other=1.0)
        k_sin = tl.load(sin + at_k, mask=rotates[None, :], other=0.0)
    top = tl.full([N], float("-inf"), tl.float32)
    total = tl.zeros([N], tl.float32)
    k_first = tl.maximum(k_begin, length - QLEN - WINDOW + 1) if WINDOW else k_begin
    for k0 in tl.range(k_begin, k_end, BN, num_stages=STAGES):
        pos = k0 + tl.arange(0, BN)
        live = (pos >= k_first) & (pos < k_end)
        tile, at = tile_addresses(k0, live, first, page_table, PS, BN, HK * D)
        tile += h * D
        at_kv = at[:, None] + c[None, :]
        scores = tl.zeros([BN, N], tl.float32)
        values = ()
        if ONE_COPY:
            ns = ()
            for i in tl.static_range(NC):
                ns = ns + (tl.load(k + tile + i * C + at_kv, mask=live[:, None], other=0.0),)
            ahead = tl.maximum(row_pos - k0, 0) * PAIRS
            at_q = ahead[None, :] + c[:, None]
            q_cos = tl.load(cos + at_q, mask=rotates[:, None], other=1.0)
            q_sin = tl.load(sin + at_q, mask=rotates[:, None], other=0.0)
            q0 = qs[0].to(tl.float32)
            q1 = qs[H2].to(tl.float32)
            n0 = ns[0].to(tl.float32) * w0[None, :]
            n1 = ns[H2].to(tl.float32) * w1[None, :]
            for i in tl.static_range(NC):
                if i % H2 != 0:
                    scores = tl.dot(ns[i], qs[i], scores)
            scores = tl.dot(
                (n0 * k_cos - n1 * k_sin).to(k.dtype.element_ty),
                (q0 * q_cos - q1 * q_sin).to(k.dtype.element_ty),
                scores,
            )
            scores = tl.dot(
                (n1 * k_cos + n0 * k_sin).to(k.dtype.element_ty),
                (q1 * q_cos + q0 * q_sin).to(k.dtype.element_ty),
                scores,
            )
            values = ns
        else:
            kv_live = live[:, None] if C == D else live[:, None] & (c < D)[None, :]
            key = tl.load(k + tile + at_kv, mask=kv_live, other=0.0)
            values = (tl.load(v + tile + at_kv, mask=kv_live, other=0.0),)
            scores = tl.dot(key, qs[0], scores)
        seen = live[:, None] & (pos[:, None] <= row_pos[None, :])
        if WINDOW:
            seen = seen & (pos[:, None] > row_pos[None, :] - WINDOW)
        scores = tl.where(seen, scores * (scale * LOG2E), float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 0))
        # A row that has seen no key yet has top = -inf: shift by 0 then, not by -inf.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - shift[None, :])
        decay = tl.exp2(top - shift)
        total = total * decay + tl.sum(weights, 0)
        top = new_top
        weights = weights.to(k.dtype.element_ty)
        new_accs = ()
        for i in tl.static_range(NC):
            new_accs = new_accs + (tl.dot(tl.trans(values[i]), weights, accs[i] * decay[None, :]),)
        accs = new_accs
    return top, total, accs


@triton.jit(do_not_specialize=["sequences"])
def _paged_decode(
    q, k, v, page_table, seq_lens, first_pos, cos, sin, key_weight, sinks, out, part, stats, scale,
    sequences, page_table_stride,
    HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, NC: tl.constexpr,
    PAIRS: tl.constexpr, PS: tl.constexpr, BN: tl.constexpr, QLEN: tl.constexpr, N: tl.constexpr,
    WINDOW: tl.constexpr, SPLIT: tl.constexpr, SHORT: tl.constexpr, SP: tl.constexpr,
    ONE_COPY: tl.constexpr, HAS_FIRST: tl.constexpr, HAS_SINKS: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Programs stride over items (sequence, split, KV head), numbered densely over the batch."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    G: tl.constexpr = HQ // HK
    ss = tl.arange(0, SP)
    _, _, _, counts = sequence_splits(seq_lens, ss, ss < sequences, QLEN, WINDOW, SPLIT, SHORT)
    ends = tl.cumsum(counts, 0)
    items = tl.sum(counts, 0) * HK
    n = tl.arange(0, N)
    c = tl.arange(0, C)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        h = item % HK
        index = item // HK
        s = tl.sum((ends <= index).to(tl.int32), 0)
        length, low, size, _count = sequence_splits(seq_lens, s, True, QLEN, WINDOW, SPLIT, SHORT)
        first = 0
        if HAS_FIRST:
            first = tl.load(first_pos + s)
        k_begin = low // BN * BN
        k_end = length
        if SPLIT:
            split = index - tl.sum(tl.where(ss < s, counts, 0), 0) + low // size
            k_begin = tl.maximum(k_begin, split * size)
            k_end = tl.minimum(length, (split + 1) * size)
        top, total, accs = _decode_item(
            q, k, v, page_table + s.to(tl.int64) * page_table_stride, cos, sin, key_weight, s, h, length,
            first, k_begin, k_end, scale,
            HQ, HK, D, C, NC, PAIRS, PS, BN, QLEN, N, WINDOW, ONE_COPY, STAGES,
        )  # fmt: skip
        if SPLIT:
            row = (tl.zeros([], tl.int64) + item) * (QLEN * G) + n
            n_live = n < QLEN * G
            tl.store(stats + row * 2, top, mask=n_live)
            tl.store(stats + row * 2 + 1, total, mask=n_live)
            for i in tl.static_range(NC):
                dims = i * C + c
                tl.store(
                    part + row[None, :] * D + dims[:, None],
                    accs[i],
                    mask=n_live[None, :] & (dims < D)[:, None],
                )
        else:
            if HAS_SINKS:
                sink = tl.load(sinks + h * G + n % G).to(tl.float32) * LOG2E
                new_top = tl.maximum(top, sink)
                decay = tl.exp2(top - new_top)
                total = total * decay + tl.exp2(sink - new_top)
            else:
                decay = tl.full([N], 1.0, tl.float32)
            inverse = decay / tl.where(total > 0, total, 1.0)
            row = (s * QLEN + n // G).to(tl.int64) * HQ + h * G + n % G
            for i in tl.static_range(NC):
                dims = i * C + c
                tl.store(
                    out + row[None, :] * D + dims[:, None],
                    (accs[i] * inverse[None, :]).to(out.dtype.element_ty),
                    mask=(n < QLEN * G)[None, :] & (dims < D)[:, None],
                )


def paged_decode(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    page_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    q_len: int = 1,
    window: int = 0,
    scale: float = 1.0,
    first_pos: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    workspace: torch.Tensor | None = None,
    config: DecodeConfig | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """Attention of the newest ``q_len`` tokens of each sequence to its paged cache.

    Args:
        q: [sequences * q_len, heads, head_dim], rotated, save for one-copy layers: there it is
            normalised, folded with the key weight and *not* rotated.
        key_cache, value_cache: [pages, page_size, kv_heads, head_dim]; for one copy the first
            holds n and the second is ``None``.
        page_table: int32 [sequences, max_pages]; entry j holds positions from
            ``first_pos[s] + j * page_size``.
        seq_lens: int32 [sequences], tokens in the cache, the query rows' own included. 0: no
            sequence, its output is 0.
        window: keys a row sees, itself included; 0 for all.
        first_pos: int32 [sequences], position of the page_table's first entry, a multiple of the page
            size; ``None`` for 0, which it must be without a window.
        sinks: [heads] logits that take weight but add no value.
        workspace: float32, ``decode_workspace_size(...)`` elements for tables of this width, where
            ``config.split_tokens`` is set.

    Returns:
        ``out``, [sequences * q_len, heads, head_dim].

    Raises:
        ValueError: a shape, dtype or option that does not fit.
    """
    config = config or default_decode_config(window, one_copy is not None)
    shape = paged_shape(q, key_cache, value_cache, page_table, seq_lens, out, one_copy)
    require(
        shape.rows == shape.sequences * q_len,
        f"{shape.sequences} page_table rows of {q_len} queries do not fit q {tuple(q.shape)}",
    )
    _check(config, one_copy)
    tokens = page_table.shape[1] * shape.page_size
    part, stats = _parts(shape, config, q_len, tokens, window, workspace)
    kernel = None
    if part is not None and config.use_hopper:
        kernel = kernel_for(
            shape, q, one_copy, window=window, sinks=sinks, scale=scale, q_len=q_len,
            split=config.split_tokens, short=config.short_split_tokens,
        )  # fmt: skip
    if kernel is not None:
        assert one_copy is not None
        launch(
            kernel, shape, q, key_cache, page_table, seq_lens, one_copy, scale=scale, pdl=pdl, part=part,
            stats=stats, q_len=q_len, split=config.split_tokens, short=config.short_split_tokens,
        )  # fmt: skip
    else:
        _launch(
            shape, q, key_cache, value_cache, page_table, seq_lens, out, q_len, window, scale, first_pos,
            sinks, one_copy, part, stats, config, pdl,
        )  # fmt: skip
    if part is not None and stats is not None:
        combine_splits(
            part, stats, seq_lens, sinks, out,
            kv_heads=shape.kv_heads, q_len=q_len, window=window, split=config.split_tokens,
            short=config.short_split_tokens, pdl=pdl,
        )  # fmt: skip
    return out


def _check(config: DecodeConfig, one_copy: OneCopy | None) -> None:
    tile = config.tile
    require_tile("tile", tile)
    # Triton 3.6 miscompiles 64 one-copy keys for Hopper: rotated keys in registers feed wgmma.
    require(one_copy is None or tile <= 32, "one copy needs a tile of at most 32 keys")
    require(
        config.split_tokens % tile == 0 and config.short_split_tokens % tile == 0,
        "split and short must be multiples of the tile",
    )


def _parts(
    shape: PagedShape, config: DecodeConfig, q_len: int, tokens: int, window: int,
    workspace: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
    """Where splits leave their sums and statistics; ``None`` for both without splits."""
    if not config.split_tokens:
        return None, None
    need = decode_workspace_size(
        shape.sequences, q_len, shape.heads, shape.head_dim, tokens, config.split_tokens, config.short_split_tokens,
        window,
    )  # fmt: skip
    have = 0 if workspace is None else workspace.numel()
    require(have >= need, f"workspace holds {have} float32; {need} are needed")
    assert workspace is not None
    return workspace, workspace[need // (shape.head_dim + 2) * shape.head_dim :]


def _launch(
    shape: PagedShape, q: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor | None,
    page_table: torch.Tensor, seq_lens: torch.Tensor, out: torch.Tensor, q_len: int, window: int,
    scale: float, first_pos: torch.Tensor | None, sinks: torch.Tensor | None,
    one_copy: OneCopy | None, part: torch.Tensor | None, stats: torch.Tensor | None,
    config: DecodeConfig, pdl: bool,
) -> None:  # fmt: skip
    """The Triton kernel, with or without splits."""
    heads, head_dim, kv_heads = shape.heads, shape.head_dim, shape.kv_heads
    pairs = one_copy.cos.shape[1] if one_copy else 0
    width = (
        one_copy_block_width(head_dim, pairs) if one_copy else max(16, next_power_of_2(head_dim))
    )
    programs = shape.sequences * kv_heads
    if config.split_tokens:
        programs = multiprocessor_count(q.device) * config.programs_per_sm
    unused = seq_lens
    _paged_decode[(programs,)](
        q, key_cache, key_cache if value_cache is None else value_cache, page_table, seq_lens,
        unused if first_pos is None else first_pos,
        one_copy.cos if one_copy else unused, one_copy.sin if one_copy else unused,
        one_copy.key_weight if one_copy else unused, unused if sinks is None else sinks,
        out, unused if part is None else part, unused if stats is None else stats, scale,
        shape.sequences, page_table.stride(0),
        C=width, NC=-(-head_dim // width), PAIRS=pairs, PS=shape.page_size, BN=config.tile,
        N=max(16, next_power_of_2(q_len * shape.group)), ONE_COPY=one_copy is not None,
        HAS_FIRST=first_pos is not None, STAGES=config.stages,
        HQ=heads, HK=kv_heads, D=head_dim, QLEN=q_len, WINDOW=window, SPLIT=config.split_tokens,
        SHORT=config.short_split_tokens, SP=max(16, next_power_of_2(shape.sequences)),
        HAS_SINKS=sinks is not None, num_warps=config.warps, **pdl_options(pdl),
    )  # fmt: skip


def default_decode_config(window: int, one_copy: bool = False) -> DecodeConfig:
    """Measured on an H100 (docs/log-kernels.md): no split within a window, else 512 tokens.

    One copy in splits of 1,024: 9 to 11 % faster than 512 from 7k tokens on; in splits of 256 at
    1k, where it is a third slower.
    """
    if window:
        return DecodeConfig(tile=32, stages=8)
    if one_copy:
        return DecodeConfig(
            tile=32,
            split_tokens=1024,
            short_split_tokens=256,
            stages=5,
            programs_per_sm=2,
            use_hopper=True,
        )
    return DecodeConfig(tile=32, split_tokens=512, stages=5, programs_per_sm=2)
