"""Triton code of split-KV: how a sequence's keys are split, and how the splits are combined."""

import triton
import triton.language as tl

from ...triton_launch import pdl_launch_dependents, pdl_wait
from .shared_steps import LOG2E

MAX_SHORT_SPLITS = tl.constexpr(8)  # a sequence that would need more short splits has long ones


@triton.jit
def sequence_splits(
    seq_lens, seq, live,
    Q_LEN: tl.constexpr, WINDOW: tl.constexpr, SPLIT: tl.constexpr, SHORT_SPLIT: tl.constexpr,
):  # fmt: skip
    """Return length, first visible key, tokens per split and number of splits of sequences.

    The first split is the one that holds the first visible key.
    """
    length = tl.load(seq_lens + seq, mask=live, other=0)
    low = tl.zeros_like(length)
    if WINDOW:
        low = tl.maximum(length - Q_LEN - WINDOW + 1, 0)
    if SPLIT == 0:
        return length, low, low, tl.where(live, 1, 0)
    size = tl.zeros_like(length) + SPLIT
    if SHORT_SPLIT:
        size = tl.where(length <= MAX_SHORT_SPLITS * SHORT_SPLIT, SHORT_SPLIT, size)
    return length, low, size, tl.cdiv(length, size) - low // size


@triton.jit(do_not_specialize=["sequences"])
def split_combine_kernel(
    partial_sums, partial_stats, seq_lens, sinks, out, sequences,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    Q_LEN: tl.constexpr, WINDOW: tl.constexpr, SPLIT: tl.constexpr, SHORT_SPLIT: tl.constexpr,
    PADDED_SEQUENCES: tl.constexpr, BLOCK_SPLITS: tl.constexpr, HAS_SINKS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Combine the splits of one output row [head_dim] per program."""
    pdl_launch_dependents(PDL)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    seq = tl.program_id(0) // (Q_LEN * HEADS)
    query_row = tl.program_id(0) // HEADS % Q_LEN
    head = tl.program_id(0) % HEADS
    seqs = tl.arange(0, PADDED_SEQUENCES)
    dim = tl.arange(0, BLOCK_DIM)
    _, _, _, counts = sequence_splits(
        seq_lens, seqs, seqs < sequences, Q_LEN, WINDOW, SPLIT, SHORT_SPLIT
    )
    before = tl.sum(tl.where(seqs < seq, counts, 0), 0)
    count = tl.sum(tl.where(seqs == seq, counts, 0), 0)
    pdl_wait(PDL)  # lengths are uploaded before the first launch of a step
    top = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    if HAS_SINKS:
        top = tl.load(sinks + head).to(tl.float32) * LOG2E
        total = tl.full([], 1.0, tl.float32)
    acc = tl.zeros([BLOCK_DIM], tl.float32)
    for first in range(0, count, BLOCK_SPLITS):
        split = first + tl.arange(0, BLOCK_SPLITS)
        item = ((before + split) * KV_HEADS + head // GROUP).to(tl.int64)
        row = item * (Q_LEN * GROUP) + query_row * GROUP + head % GROUP
        tops = tl.load(partial_stats + row * 2, mask=split < count, other=float("-inf"))
        totals = tl.load(partial_stats + row * 2 + 1, mask=split < count, other=0.0)
        sums = tl.load(
            partial_sums + row[:, None] * HEAD_DIM + dim[None, :],
            mask=(split < count)[:, None] & (dim < HEAD_DIM)[None, :],
            other=0.0,
        )
        new_top = tl.maximum(top, tl.max(tops, 0))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        factors = tl.exp2(tops - shift)
        decay = tl.exp2(top - shift)
        total = total * decay + tl.sum(totals * factors, 0)
        acc = acc * decay + tl.sum(sums * factors[:, None], 0)
        top = new_top
    acc = acc / tl.where(total > 0, total, 1.0)
    tl.store(
        out + tl.program_id(0).to(tl.int64) * HEAD_DIM + dim,
        acc.to(out.dtype.element_ty),
        mask=dim < HEAD_DIM,
    )
