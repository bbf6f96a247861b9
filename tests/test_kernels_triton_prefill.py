"""Paged prefill attention against float64. About 15 seconds in Triton's interpreter."""

import pytest
import torch
from kernel_device import ATTENTION_LIMIT, DEVICE, DTYPE, poisoned_caches, relative, rotary

from eightfold.kernels.onecopy import OneCopy
from eightfold.kernels.prefill import (
    PrefillConfig,
    paged_prefill,
    paged_prefill_reference,
)


def build(counts: list[int], lens: list[int], heads: int, kv_heads: int, head_dim: int,
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


CASES = {
    "whole prompts": ([37, 5], [37, 5], 4, 2, 32),
    "context before": ([20, 1, 33], [60, 40, 33], 4, 1, 64),
    "window": ([30, 9], [70, 9], 4, 2, 32, 24),
    "one copy": ([21, 40], [50, 40], 8, 2, 64, 0, 8),
    "odd dim": ([18], [30], 2, 2, 48),
}


@pytest.mark.parametrize("tile", [16, 32])
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name: str, tile: int) -> None:
    case = build(*CASES[name])
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(**case, out=out, config=PrefillConfig(rows=32, tile=tile, warps=4, stages=2))
    assert relative(out, paged_prefill_reference(**case)) < ATTENTION_LIMIT


def test_sinks() -> None:
    case = build([12, 7], [20, 7], 4, 2, 32)
    sinks = torch.tensor([0.5, 2.0, -1.0, 0.0], device=DEVICE)
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(**case, out=out, sinks=sinks, scale=0.3, config=PrefillConfig(32, 16, 4, 2))
    wanted = paged_prefill_reference(**case, sinks=sinks, scale=0.3)
    assert relative(out, wanted) < ATTENTION_LIMIT


def test_clear_errors() -> None:
    case = build([5], [5], 4, 2, 32)
    with pytest.raises(ValueError, match="value_cache is missing"):
        paged_prefill(**{**case, "value_cache": None}, out=case["q"].clone())
    with pytest.raises(ValueError, match="hold no group"):
        paged_prefill(**case, out=case["q"].clone(), config=PrefillConfig(rows=1))
    for wrong in (PrefillConfig(rows=48), PrefillConfig(tile=24)):
        with pytest.raises(ValueError, match="a power of two"):
            paged_prefill(**case, out=case["q"].clone(), config=wrong)
