"""Inputs of paged prefill attention with NaN wherever no visible key lies."""

import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, poisoned_caches, rotary

from eightfold.kernels.attention.one_copy_keys import OneCopy


def prefill_case(
    counts: list[int],
    seq_lens: list[int],
    heads: int,
    kv_heads: int,
    head_dim: int,
    window: int = 0,
    pairs: int = 0,
    page_size: int = 16,
) -> dict:
    """Return arguments of ``paged_prefill``.

    Args:
        counts: tokens of each chunk.
        seq_lens: tokens in the cache of each sequence, those of its chunk included.
        heads: query heads.
        kv_heads: heads of keys and values.
        head_dim: width of a head.
        window: keys that a row sees; 0 for all.
        pairs: rotated pairs of a one-copy layer; 0 for a layer with keys and values.
        page_size: tokens of a page.
    """
    generator = torch.Generator().manual_seed(sum(counts) + sum(seq_lens))

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DTYPE).to(DEVICE)

    lows = [
        max(0, n - c - window + 1) if window else 0 for n, c in zip(seq_lens, counts, strict=True)
    ]
    caches, page_table, firsts = poisoned_caches(
        1 if pairs else 2, seq_lens, lows, (page_size, kv_heads, head_dim), sum(counts)
    )
    one_copy = None
    if pairs:
        one_copy = OneCopy(1 + 0.3 * randn(head_dim), *rotary(max(seq_lens) + 64, pairs))
    query_starts = torch.tensor([0, *counts]).cumsum(0).int()
    return {
        "q": randn(sum(counts), heads, head_dim) * 0.5,
        "key_cache": caches[0],
        "value_cache": None if pairs else caches[1],
        "page_table": page_table,
        "query_starts": query_starts.to(DEVICE),
        "seq_lens": torch.tensor(seq_lens, dtype=torch.int32, device=DEVICE),
        "window": window,
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE) if window else None,
        "one_copy": one_copy,
    }
