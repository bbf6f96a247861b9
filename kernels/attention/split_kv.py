"""Splits of a decode along the keys: how they are numbered, and how their results are merged.

Splits start at absolute multiples of ``split`` tokens, of ``short`` for a sequence that has at most
``MAX_SHORT_SPLITS`` of those: few long splits would leave multiprocessors idle. Which it is depends on
the sequence's own length alone. Items (sequence, split, KV head) are numbered densely over the
batch. An item leaves unnormalised sums ``part`` [items, q_len * group,
head_dim] and, per row, ``stats`` [items, q_len * group, 2]: the largest score (times log2 e), or
another number not far below it, and the sum of weights relative to it.
"""

import torch
import triton
import triton.language as tl

from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait

LOG2E = tl.constexpr(1.4426950408889634)
MAX_SHORT_SPLITS = tl.constexpr(8)


@triton.jit
def sequence_splits(
    seq_lens, s, live,
    QLEN: tl.constexpr, WINDOW: tl.constexpr, SPLIT: tl.constexpr, SHORT: tl.constexpr,
):  # fmt: skip
    """Per sequence: length, first visible key, tokens per split, and the number of splits.

    The first split is the one that holds the first visible key.
    """
    length = tl.load(seq_lens + s, mask=live, other=0)
    low = tl.zeros_like(length)
    if WINDOW:
        low = tl.maximum(length - QLEN - WINDOW + 1, 0)
    if SPLIT == 0:
        return length, low, low, tl.where(live, 1, 0)
    size = tl.zeros_like(length) + SPLIT
    if SHORT:
        size = tl.where(length <= MAX_SHORT_SPLITS * SHORT, SHORT, size)
    return length, low, size, tl.cdiv(length, size) - low // size


@triton.jit(do_not_specialize=["sequences"])
def _combine(
    part, stats, seq_lens, sinks, out, sequences,
    HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, QLEN: tl.constexpr,
    WINDOW: tl.constexpr, SPLIT: tl.constexpr, SHORT: tl.constexpr, SP: tl.constexpr,
    BS: tl.constexpr, HAS_SINKS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program per output row [head_dim] merges the splits of its sequence and KV head."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    G: tl.constexpr = HQ // HK
    s = tl.program_id(0) // (QLEN * HQ)
    qi = tl.program_id(0) // HQ % QLEN
    head = tl.program_id(0) % HQ
    ss = tl.arange(0, SP)
    d = tl.arange(0, DP)
    _, _, _, counts = sequence_splits(seq_lens, ss, ss < sequences, QLEN, WINDOW, SPLIT, SHORT)
    before = tl.sum(tl.where(ss < s, counts, 0), 0)
    count = tl.sum(tl.where(ss == s, counts, 0), 0)
    top = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    if HAS_SINKS:
        top = tl.load(sinks + head).to(tl.float32) * LOG2E
        total = tl.full([], 1.0, tl.float32)
    acc = tl.zeros([DP], tl.float32)
    for i0 in range(0, count, BS):
        i = i0 + tl.arange(0, BS)
        item = ((before + i) * HK + head // G).to(tl.int64)
        row = item * (QLEN * G) + qi * G + head % G
        tops = tl.load(stats + row * 2, mask=i < count, other=float("-inf"))
        totals = tl.load(stats + row * 2 + 1, mask=i < count, other=0.0)
        values = tl.load(
            part + row[:, None] * D + d[None, :],
            mask=(i < count)[:, None] & (d < D)[None, :],
            other=0.0,
        )
        new_top = tl.maximum(top, tl.max(tops, 0))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        factors = tl.exp2(tops - shift)
        decay = tl.exp2(top - shift)
        total = total * decay + tl.sum(totals * factors, 0)
        acc = acc * decay + tl.sum(values * factors[:, None], 0)
        top = new_top
    acc = acc / tl.where(total > 0, total, 1.0)
    tl.store(out + tl.program_id(0).to(tl.int64) * D + d, acc.to(out.dtype.element_ty), mask=d < D)


def combine_splits(
    part: torch.Tensor,
    stats: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor | None,
    out: torch.Tensor,
    *,
    kv_heads: int,
    q_len: int,
    window: int,
    split: int,
    short: int,
    pdl: bool,
) -> None:
    """Merge the items' results into ``out`` [sequences * q_len, heads, head_dim]."""
    rows, heads, head_dim = out.shape
    _combine[(rows * heads,)](
        part, stats, seq_lens, seq_lens if sinks is None else sinks, out, rows // q_len,
        HQ=heads, HK=kv_heads, D=head_dim, DP=next_power_of_2(head_dim), QLEN=q_len, WINDOW=window,
        SPLIT=split, SHORT=short, SP=max(16, next_power_of_2(rows // q_len)), BS=8,
        HAS_SINKS=sinks is not None, num_warps=4, **pdl_options(pdl),
    )  # fmt: skip


def max_splits(max_tokens: int, split: int, short: int) -> int:
    """Most splits of a sequence of up to ``max_tokens`` tokens."""
    few = -(-min(max_tokens, MAX_SHORT_SPLITS.value * short) // short) if short else 0
    return max(few, -(-max_tokens // split))


def decode_workspace_size(
    sequences: int,
    q_len: int,
    heads: int,
    head_dim: int,
    max_tokens: int,
    split: int,
    short: int = 0,
    window: int = 0,
) -> int:
    """float32 elements ``paged_decode`` needs where it splits: partial sums of every split.

    Args:
        max_tokens: that a row of the page_table has room for.
        window: as in ``paged_decode``. A page_table that begins at one need not begin where a split
            does: a sequence may have a part of one more.
    """
    splits = max_splits(max_tokens, split, short) + (window > 0)
    return sequences * splits * q_len * heads * (head_dim + 2)
