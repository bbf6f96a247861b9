"""The device of kernel tests: a GPU, in bfloat16, or Triton's interpreter, in float32.

The interpreter cannot multiply matrices in bfloat16. ``conftest`` selects it if there is no GPU.
"""

import pytest
import torch

pytest.importorskip("triton")

CUDA = torch.cuda.is_available()
HOPPER = CUDA and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
DEVICE = "cuda" if CUDA else "cpu"
DTYPE = torch.bfloat16 if CUDA else torch.float32
ATTENTION_LIMIT = 8e-3 if CUDA else 2e-5


def relative_error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the relative Frobenius error; NaN counts as infinite."""
    error = (out.double() - reference.double()).norm() / reference.double().norm()
    return float(error.nan_to_num(float("inf")))


def rotary(positions: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin, [positions, pairs], of true rotations, because the kernels add angles."""
    angles = torch.arange(positions)[:, None] * 100.0 ** (-torch.arange(pairs) / max(1, pairs))
    return angles.cos().to(DEVICE), angles.sin().to(DEVICE)


def poisoned_caches(
    copies: int, lens: list[int], lows: list[int], shape: tuple[int, int, int], seed: int
) -> tuple[list[torch.Tensor], torch.Tensor, list[int]]:
    """Return caches that hold NaN except for the keys of positions ``[low, length)``.

    Args:
        copies: number of caches, with the same pages.
        lens: length of each sequence.
        lows: first position of each sequence that has a key.
        shape: (page_size, kv_heads, head_dim).
        seed: seed of keys and of the pages' order.

    Returns:
        The caches, their int32 page table, and the position of the first entry of each table row.
    """
    generator = torch.Generator().manual_seed(seed)
    page_size = shape[0]
    firsts = [low // page_size * page_size for low in lows]
    counts = [-(-n // page_size) - f // page_size for n, f in zip(lens, firsts, strict=True)]
    order = torch.randperm(sum(counts), generator=generator) + 1
    table = torch.zeros(len(lens), max(1, *counts), dtype=torch.int32)
    empty = torch.full((sum(counts) + 1, *shape), float("nan"), dtype=DTYPE, device=DEVICE)
    caches = [empty.clone() for _ in range(copies)]
    used = 0
    for s, (low, first, length) in enumerate(zip(lows, firsts, lens, strict=True)):
        table[s, : counts[s]] = order[used : used + counts[s]].int()
        used += counts[s]
        at = torch.arange(low, length)
        slots = table[s].long()[(at - first) // page_size] * page_size + at % page_size
        for cache in caches:
            values = torch.randn(len(at), *shape[1:], generator=generator).to(DTYPE)
            cache.flatten(0, 1)[slots.to(DEVICE)] = values.to(DEVICE)
    return caches, table.to(DEVICE), firsts
