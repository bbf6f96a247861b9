"""Inputs of paged prefill attention with NaN wherever no visible key lies."""

import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, poisoned_caches, rotary

from eightfold.kernels.attention.one_copy import OneCopy


def prefill_case(counts: list[int], lens: list[int], heads: int, kv_heads: int, head_dim: int,
          window: int = 0, pairs: int = 0, page_size: int = 16) -> dict:  # fmt: skip
    """Chunks of ``counts`` tokens that end at ``lens``; slots no row may see hold NaN."""
    generator = torch.Generator().manual_seed(sum(counts) + sum(lens))

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DTYPE).to(DEVICE)

    lows = [max(0, n - c - window + 1) if window else 0 for n, c in zip(lens, counts, strict=True)]
    caches, table, firsts = poisoned_caches(
        1 if pairs else 2, lens, lows, (page_size, kv_heads, head_dim), sum(counts)
    )
    one_copy = None
    if pairs:
        one_copy = OneCopy(1 + 0.3 * randn(head_dim), *rotary(max(lens) + 64, pairs))
    starts = torch.tensor([0, *counts]).cumsum(0).int()
    return {
        "q": randn(sum(counts), heads, head_dim) * 0.5,
        "key_cache": caches[0],
        "value_cache": None if pairs else caches[1],
        "table": table,
        "starts": starts.to(DEVICE),
        "lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "window": window,
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE) if window else None,
        "one_copy": one_copy,
    }
