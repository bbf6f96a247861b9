"""Split-KV decode: how much memory the splits of the keys need, and how they are combined.

The keys of a sequence are split at absolute multiples of ``split_tokens``. A sequence of at most
``MAX_SHORT_SPLITS`` times ``short_split_tokens`` is split at multiples of the latter instead,
because few long splits would leave multiprocessors idle. The choice depends on the length of the
sequence alone.

Work items (sequence, split, KV head) are numbered densely over the batch. Each leaves unnormalized
sums in ``partial_sums`` [items, q_len * group, head_dim] and two numbers per row in
``partial_stats`` [items, q_len * group, 2]: the largest score times log2(e), or a number not far
below it, and the sum of the weights relative to that number.

The scheme is that of Flash-Decoding (Dao, Haziza, Massa and Sizov, "Flash-Decoding for
long-context inference", PyTorch blog, 2023).
"""

import torch

from ..triton_launch import next_power_of_2, pdl_options
from .triton_kernels.split_combine_kernel import MAX_SHORT_SPLITS, split_combine_kernel


def combine_splits(
    partial_sums: torch.Tensor,
    partial_stats: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor | None,
    out: torch.Tensor,
    *,
    kv_heads: int,
    q_len: int,
    window: int,
    split_tokens: int,
    short_split_tokens: int,
    pdl: bool,
) -> None:
    """Combine the work items' results into ``out`` [sequences * q_len, heads, head_dim]."""
    rows, heads, head_dim = out.shape
    sequences = rows // q_len
    split_combine_kernel[(rows * heads,)](
        partial_sums, partial_stats, seq_lens, seq_lens if sinks is None else sinks, out,
        sequences,
        HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, BLOCK_DIM=next_power_of_2(head_dim),
        Q_LEN=q_len, WINDOW=window, SPLIT=split_tokens, SHORT_SPLIT=short_split_tokens,
        PADDED_SEQUENCES=max(16, next_power_of_2(sequences)),
        BLOCK_SPLITS=32 if head_dim <= 128 else 8,
        HAS_SINKS=sinks is not None, num_warps=4, **pdl_options(pdl),
    )  # fmt: skip


def max_splits(max_tokens: int, split_tokens: int, short_split_tokens: int) -> int:
    """Return the largest number of splits of a sequence of up to ``max_tokens`` tokens."""
    short = 0
    if short_split_tokens:
        longest_short = MAX_SHORT_SPLITS.value * short_split_tokens
        short = -(-min(max_tokens, longest_short) // short_split_tokens)
    return max(short, -(-max_tokens // split_tokens))


def decode_workspace_size(
    sequences: int,
    q_len: int,
    heads: int,
    head_dim: int,
    max_tokens: int,
    split_tokens: int,
    short_split_tokens: int = 0,
    window: int = 0,
) -> int:
    """Return how many float32 elements ``paged_decode`` needs for the results of all splits.

    Args:
        sequences: rows of the page table.
        q_len: query rows of a sequence.
        heads: query heads.
        head_dim: width of a head.
        max_tokens: tokens for which a row of the page table has room.
        split_tokens: as in ``DecodeConfig``; not 0.
        short_split_tokens: as in ``DecodeConfig``.
        window: as in ``paged_decode``. The page table of a window need not begin where a split
            does, so that a sequence can have one more split than its table has room for.
    """
    splits = max_splits(max_tokens, split_tokens, short_split_tokens) + (window > 0)
    return sequences * splits * q_len * heads * (head_dim + 2)
