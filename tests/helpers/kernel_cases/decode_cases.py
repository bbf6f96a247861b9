"""Inputs of paged decode attention with NaN wherever no visible key lies."""

import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, poisoned_caches, rotary

from eightfold.kernels.attention.paged_decode import (
    DecodeConfig,
    OneCopy,
    decode_workspace,
    paged_decode,
)


def decode_case(
    seed: int,
    lens: list[int],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    page_size: int = 16,
    q_len: int = 1,
    window: int = 0,
    pairs: int = 0,
) -> dict:
    """A pool with NaN wherever no visible key lies, and the tables into it."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DTYPE).to(DEVICE)

    lows = [max(0, n - q_len - window + 1) if window else 0 for n in lens]
    caches, table, firsts = poisoned_caches(
        1 if pairs else 2, lens, lows, (page_size, kv_heads, head_dim), seed
    )
    one_copy = None
    if pairs:
        one_copy = OneCopy(1 + 0.3 * randn(head_dim), *rotary(max(lens) + 64, pairs))
    return {
        "q": randn(len(lens) * q_len, heads, head_dim) * 0.5,
        "key_cache": caches[0],
        "value_cache": None if pairs else caches[1],
        "table": table,
        "lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "q_len": q_len,
        "window": window,
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE) if window else None,
        "one_copy": one_copy,
    }


def run(case: dict, config: DecodeConfig, **extra: object) -> torch.Tensor:
    q, table = case["q"], case["table"]
    out = torch.full_like(q, float("nan"))
    workspace = None
    if config.split:
        most = table.shape[1] * case["key_cache"].shape[1]
        need = decode_workspace(
            table.shape[0], case["q_len"], q.shape[1], q.shape[2], most, config.split, config.short,
            case["window"],
        )  # fmt: skip
        workspace = torch.full((need,), float("nan"), device=q.device)
    return paged_decode(**case, out=out, workspace=workspace, config=config, **extra)
