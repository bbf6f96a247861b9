"""Attention jobs of ``kernel_times.py``: decode and prefill, sliding, global and with one copy."""

import functools

import torch
from support.layer_jobs import HEADS, PAGE, describe
from support.timing_buffers import Buffers, Result, relative, timed

from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.attention.split_kv import decode_workspace_size


class AttentionJobs(Buffers):
    """One job per (kernel, shape, configuration)."""

    def one_copy(self) -> OneCopy:
        """A key weight, and the angles of 64 pairs."""
        at = torch.arange(65536, device=self.device)[:, None]
        angles = at * 1e6 ** (-2 * torch.arange(64, device=self.device) / 512)
        return OneCopy(self.randn(512), angles.cos(), angles.sin())

    def decode(self, kind: str, rows: int, q_len: int, context: int, config: DecodeConfig,
               once: bool) -> Result:  # fmt: skip
        sliding = kind == "sliding"
        kv_heads, head_dim = (16, 256) if sliding else (4, 512)
        held = min(context, 1024 + q_len + 1) if sliding else context
        first = max(0, context - q_len - 1023) // PAGE * PAGE if sliding else 0
        pages = -(-context // PAGE) - first // PAGE
        page_size = PAGE * kv_heads * head_dim
        count = min(rows * pages * 8, self.pool.numel() // (2 if sliding else 1) // page_size)
        caches = self.views(count, PAGE, kv_heads, head_dim, at_most=2)
        if sliding and len(caches) < 2:
            caches = caches * 2
        order = torch.randperm(count, device=self.device).int()
        sets = max(1, min(6, count // (rows * pages)))
        tables = [order[i * rows * pages :][: rows * pages].view(rows, pages) for i in range(sets)]
        lens = torch.full((rows,), context, dtype=torch.int32, device=self.device)
        firsts = torch.full((rows,), first, dtype=torch.int32, device=self.device)
        q = self.randn(rows * q_len, HEADS, head_dim) * 0.05
        out = torch.full_like(q, float("nan"))
        one_copy = None if sliding else self.one_copy()
        workspace = None
        if config.split_tokens:
            need = decode_workspace_size(
                rows, q_len, HEADS, head_dim, pages * PAGE, config.split_tokens, config.short_split_tokens,
                1024 if sliding else 0,
            )  # fmt: skip
            workspace = torch.full((need,), float("nan"), device=self.device)
        shared = {"q_len": q_len, "window": 1024 if sliding else 0,
                  "first_pos": firsts if sliding else None, "one_copy": one_copy}  # fmt: skip
        caches_in = (caches[0], caches[1] if sliding else None)

        def run(table: torch.Tensor) -> torch.Tensor:
            return paged_decode(q, *caches_in, table, lens, out, workspace=workspace,
                                config=config, pdl=True, **shared)  # fmt: skip

        run(tables[0])
        if once:
            return Result(kind, "", 0, 0, 0)
        wanted = paged_decode_reference(
            q[: 2 * q_len], *caches_in, tables[0][:2], lens[:2],
            **{**shared, "first_pos": firsts[:2] if sliding else None},
        )  # fmt: skip
        error = relative(out[: 2 * q_len], wanted)
        assert not out.isnan().any()
        time_us = timed([functools.partial(run, t) for t in tables] * 2)
        read = rows * held * kv_heads * head_dim * 2 * (2 if sliding else 1) / 1e9
        return Result(f"decode {kind} {rows}x{q_len} {context}", describe(config), time_us,
                      read, error)  # fmt: skip

    def prefill(self, kind: str, config: PrefillConfig, once: bool) -> Result:
        """The second chunk of 4,096 tokens of a prompt of 8,192; gigabytes holds teraflops."""
        sliding = kind == "sliding"
        tokens, context = 4096, 8192
        kv_heads, head_dim, window = (16, 256, 1024) if sliding else (4, 512, 0)
        first = (context - tokens - 1023) // PAGE * PAGE if sliding else 0
        pages = (context - first) // PAGE
        two_copies = kind != "global"
        caches = self.views(pages, PAGE, kv_heads, head_dim, at_most=2)
        table = torch.randperm(pages, device=self.device).int()[None]
        q = self.randn(tokens, HEADS, head_dim) * 0.05
        out = torch.full_like(q, float("nan"))
        one_copy = None if two_copies else self.one_copy()
        lens = torch.tensor([context], dtype=torch.int32, device=self.device)
        starts = torch.tensor([0, tokens], dtype=torch.int32, device=self.device)
        options = {
            "window": window, "one_copy": one_copy,
            "first_pos": torch.tensor([first], dtype=torch.int32, device=self.device),
        }  # fmt: skip
        inputs = (caches[0], caches[1] if two_copies else None, table)

        def run() -> torch.Tensor:
            return paged_prefill(q, *inputs, starts, lens, out, config=config, **options)

        run()
        if once:
            return Result(kind, "", 0, 0, 0)
        tail = torch.tensor([0, 64], dtype=torch.int32, device=self.device)
        error = relative(
            out[-64:], paged_prefill_reference(q[-64:], *inputs, tail, lens, **options)
        )
        assert not out.isnan().any()
        pairs = tokens * (window or context - tokens / 2)
        return Result(f"prefill {kind}", describe(config), timed([run] * 3),
                      pairs * HEADS * head_dim * 4 / 1e12, error)  # fmt: skip
