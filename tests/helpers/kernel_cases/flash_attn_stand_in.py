"""A stand-in for flash-attn 2, written from its documentation."""

import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    block_table: torch.Tensor | None,
) -> torch.Tensor:
    """Compute what flash-attn's function of this name does according to its documentation.

    Rows of no sequence become NaN. Values of NaN give NaN even if their weight is 0.
    """
    assert all(t.dtype == torch.int32 and t.is_contiguous() for t in (cu_seqlens_q, cu_seqlens_k))
    assert block_table is None or k.shape[1] % 256 == 0
    assert max_seqlen_q > 1
    out = torch.full_like(q, float("nan"))
    group = q.shape[1] // k.shape[-2]
    for s, (begin, end) in enumerate(pairwise(cu_seqlens_q)):
        low, high = int(cu_seqlens_k[s]), int(cu_seqlens_k[s + 1])
        rows, count = int(end - begin), high - low
        assert rows <= max_seqlen_q
        assert count <= max_seqlen_k
        slots = torch.arange(low, high, device=q.device)
        keys, values = k, v
        if block_table is not None:
            slots -= low
            blocks = block_table[s].long()[slots // k.shape[1]]
            slots = blocks * k.shape[1] + slots % k.shape[1]
            keys, values = k.flatten(0, 1), v.flatten(0, 1)
        keys, values = (t[slots].double().repeat_interleave(group, 1) for t in (keys, values))
        visible = _visible(rows, count, window_size[0], 0 if causal else window_size[1], q.device)
        scores = torch.einsum("rhd,khd->hrk", q[begin:end].double(), keys) * softmax_scale
        weights = scores.masked_fill(~visible, float("-inf")).softmax(2)
        weights = weights.masked_fill(~visible.any(1)[None, :, None], 0.0)
        out[begin:end] = torch.einsum("hrk,khd->rhd", weights, values).to(q.dtype)
    return out


def _visible(rows: int, keys: int, left: int, right: int, device: torch.device) -> torch.Tensor:
    """Bool [rows, keys] for a window around each row; the last row stands at the last key."""
    place = torch.arange(rows, device=device)[:, None] + keys - rows
    column = torch.arange(keys, device=device)[None, :]
    visible = torch.ones(rows, keys, dtype=torch.bool, device=device)
    if left >= 0:
        visible &= column >= place - left
    if right >= 0:
        visible &= column <= place + right
    return visible


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let ``import flash_attn`` give a module with the stand-in, and return the module."""
    module: Any = ModuleType("flash_attn")
    module.__version__ = "2.8.3"
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return module
