"""Attention jobs of `kernel_times.py`: decode and prefill, sliding, global and with one copy."""

import functools
from typing import Any

import torch
from support.kernel_jobs.graph_timing import (
    BufferPool,
    KernelTiming,
    relative_error,
    time_calls,
)
from support.kernel_jobs.job_list import HEADS, PAGE, describe

from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.attention.split_kv import decode_workspace_size


def random_one_copy(pool: BufferPool) -> OneCopy:
    """Return a random key weight, and the angles of 64 pairs."""
    positions = torch.arange(65536, device=pool.device)[:, None]
    angles = positions * 1e6 ** (-2 * torch.arange(64, device=pool.device) / 512)
    return OneCopy(pool.randn(512), angles.cos(), angles.sin())


def time_decode(
    pool: BufferPool, kind: str, rows: int, q_len: int, context: int, config: DecodeConfig,
    once: bool,
) -> KernelTiming | None:  # fmt: skip
    """Time attention of `q_len` query rows for each of `rows` sequences."""
    sliding = kind == "sliding"
    kv_heads, head_dim = (16, 256) if sliding else (4, 512)
    first = max(0, context - q_len - 1023) // PAGE * PAGE if sliding else 0
    pages = -(-context // PAGE) - first // PAGE
    key_cache, value_cache, tables = _decode_caches(pool, sliding, kv_heads, head_dim, rows, pages)
    lens = torch.full((rows,), context, dtype=torch.int32, device=pool.device)
    firsts = torch.full((rows,), first, dtype=torch.int32, device=pool.device)
    q = pool.randn(rows * q_len, HEADS, head_dim) * 0.05
    out = torch.full_like(q, float("nan"))
    options: dict[str, Any] = {
        "q_len": q_len, "window": 1024 if sliding else 0,
        "first_pos": firsts if sliding else None,
        "one_copy": None if sliding else random_one_copy(pool),
    }  # fmt: skip
    workspace = None
    if config.split_tokens:
        size = decode_workspace_size(
            rows, q_len, HEADS, head_dim, pages * PAGE, config.split_tokens,
            config.short_split_tokens, 1024 if sliding else 0,
        )  # fmt: skip
        workspace = torch.full((size,), float("nan"), device=pool.device)

    def run(table: torch.Tensor) -> torch.Tensor:
        return paged_decode(q, key_cache, value_cache, table, lens, out, workspace=workspace,
                            config=config, pdl=True, **options)  # fmt: skip

    run(tables[0])
    if once:
        return None
    expected = paged_decode_reference(
        q[: 2 * q_len], key_cache, value_cache, tables[0][:2], lens[:2],
        **{**options, "first_pos": firsts[:2] if sliding else None},
    )  # fmt: skip
    error = relative_error(out[: 2 * q_len], expected)
    assert not out.isnan().any()
    microseconds = time_calls([functools.partial(run, table) for table in tables] * 2)
    held = min(context, 1024 + q_len + 1) if sliding else context
    read = rows * held * kv_heads * head_dim * 2 * (2 if sliding else 1) / 1e9
    name = f"decode {kind} {rows}x{q_len} {context}"
    return KernelTiming(name, describe(config), microseconds, read, error)


def _decode_caches(
    pool: BufferPool, sliding: bool, kv_heads: int, head_dim: int, rows: int, pages: int
) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Return caches of keys and values, and page tables that walk over their pages."""
    page_size = PAGE * kv_heads * head_dim
    count = min(rows * pages * 8, pool.pool.numel() // (2 if sliding else 1) // page_size)
    caches = pool.views(count, PAGE, kv_heads, head_dim, at_most=2)
    order = torch.randperm(count, device=pool.device).int()
    sets = max(1, min(6, count // (rows * pages)))
    tables = [order[i * rows * pages :][: rows * pages].view(rows, pages) for i in range(sets)]
    return caches[0], caches[-1] if sliding else None, tables


def time_prefill(
    pool: BufferPool, kind: str, config: PrefillConfig, once: bool
) -> KernelTiming | None:
    """Time the second chunk of 4,096 tokens of a prompt of 8,192; gigabytes holds teraflops."""
    sliding = kind == "sliding"
    tokens, context = 4096, 8192
    kv_heads, head_dim, window = (16, 256, 1024) if sliding else (4, 512, 0)
    first = (context - tokens - 1023) // PAGE * PAGE if sliding else 0
    pages = (context - first) // PAGE
    two_copies = kind != "global"
    caches = pool.views(pages, PAGE, kv_heads, head_dim, at_most=2)
    table = torch.randperm(pages, device=pool.device).int()[None]
    q = pool.randn(tokens, HEADS, head_dim) * 0.05
    out = torch.full_like(q, float("nan"))
    lens = torch.tensor([context], dtype=torch.int32, device=pool.device)
    starts = torch.tensor([0, tokens], dtype=torch.int32, device=pool.device)
    options: dict[str, Any] = {
        "window": window, "one_copy": None if two_copies else random_one_copy(pool),
        "first_pos": torch.tensor([first], dtype=torch.int32, device=pool.device),
    }  # fmt: skip
    inputs = (caches[0], caches[1] if two_copies else None, table)

    def run() -> torch.Tensor:
        return paged_prefill(q, *inputs, starts, lens, out, config=config, **options)

    run()
    if once:
        return None
    tail = torch.tensor([0, 64], dtype=torch.int32, device=pool.device)
    expected = paged_prefill_reference(q[-64:], *inputs, tail, lens, **options)
    error = relative_error(out[-64:], expected)
    assert not out.isnan().any()
    pairs = tokens * (window or context - tokens / 2)
    teraflops = pairs * HEADS * head_dim * 4 / 1e12
    microseconds = time_calls([run] * 3)
    return KernelTiming(f"prefill {kind}", describe(config), microseconds, teraflops, error)
