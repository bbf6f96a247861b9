"""Jobs of `kernel_times.py` for norms, rotary embedding, activation and sampling."""

import functools
from collections.abc import Callable

import torch
from support.kernel_jobs.graph_timing import (
    BufferPool,
    KernelTiming,
    relative_error,
    time_calls,
)
from support.kernel_jobs.job_list import HEADS, HIDDEN, INNER, PAGE, VOCABULARY

from eightfold.kernels.layers.gated_activation import gated_gelu, gated_gelu_reference
from eightfold.kernels.layers.rms_norm import add_rms_norm, add_rms_norm_reference
from eightfold.kernels.layers.rotary_embedding import norm_rope_and_cache
from eightfold.kernels.sampling.torch_sampler import SamplingBatch, sample
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

Calls = list[Callable[[], object]]


def time_sampling(pool: BufferPool, rows: int, filtered: bool, once: bool) -> KernelTiming | None:
    """Time sampling; the error is the share of rows whose token is not the torch sampler's."""
    logits = [torch.randn(rows, VOCABULARY, device=pool.device) * 3 for _ in range(4)]
    ones = torch.ones(rows, device=pool.device)
    indices = torch.arange(rows, device=pool.device)
    batch = SamplingBatch(
        temperature=ones, top_k=(ones * (64 if filtered else 0)).long(),
        top_p=ones * (0.95 if filtered else 1.0), min_p=ones * 0.0, seeds=indices,
        positions=indices, max_top_k=0, all_greedy=False, any_filtered=filtered,
    )  # fmt: skip
    out = torch.full((rows,), -1, dtype=torch.int64, device=pool.device)
    space = torch.empty(sampler_workspace_size(rows, VOCABULARY), device=pool.device)
    calls = [functools.partial(sample_tokens, x, batch, out, space, softcap=30.0, pdl=True)
             for x in logits]  # fmt: skip
    calls[0]()
    if once:
        return None
    expected = sample(30 * torch.tanh(logits[0] / 30), batch)
    error = float((out != expected).float().mean())
    name = f"sampling {rows}, {'k64 p.95' if filtered else 'no filter'}"
    return KernelTiming(name, "", time_calls(calls * 4), logits[0].numel() * 4 / 1e9, error)


def time_small(pool: BufferPool, name: str, rows: int, once: bool) -> KernelTiming | None:
    """Time a norm, rotary embedding or activation; at 4,096 rows the bytes moved count too."""
    if name.startswith("add_rms_norm"):
        calls, error, elements = _norm_calls(pool, rows, parts=4 if name.endswith("4") else 1)
    elif name == "gated_gelu":
        calls, error, elements = _activation_calls(pool, rows)
    else:
        calls, error, elements = _rotary_calls(pool, rows, sliding=name == "rotary sliding")
    if once:
        return None
    moved = elements * 2 / 1e9 if rows > 64 else 0.0
    return KernelTiming(f"{name} {rows}", "", time_calls(calls * 10), moved, error)


def _norm_calls(pool: BufferPool, rows: int, parts: int) -> tuple[Calls, float, int]:
    """Return the calls, the error of the first, and the elements that a call reads and writes."""
    residuals = [pool.randn(rows, HIDDEN) for _ in range(4)]
    weight, out = pool.randn(HIDDEN), pool.randn(rows, HIDDEN)
    y = torch.randn(parts, rows, HIDDEN, device=pool.device)
    y = y if parts > 1 else y[0].bfloat16()
    expected = add_rms_norm_reference(y, residuals[0], weight, weight)[1]
    assert expected is not None
    calls: Calls = [functools.partial(add_rms_norm, y, residual, weight, weight, out, pdl=True)
                    for residual in residuals]  # fmt: skip
    calls[0]()
    return calls, relative_error(out, expected), 4 * rows * HIDDEN


def _activation_calls(pool: BufferPool, rows: int) -> tuple[Calls, float, int]:
    """Return the same as `_norm_calls`."""
    out = pool.randn(rows, INNER)
    inputs = pool.views(rows, 2 * INNER, at_most=3)
    calls: Calls = [functools.partial(gated_gelu, each, out) for each in inputs]
    calls[0]()
    error = relative_error(out[:8], gated_gelu_reference(inputs[0][:8]))
    return calls, error, 3 * rows * INNER


def _rotary_calls(pool: BufferPool, rows: int, sliding: bool) -> tuple[Calls, float, int]:
    """Return the same as `_norm_calls`, without an error."""
    head_dim, kv_heads, pairs = (256, 16, 128) if sliding else (512, 4, 64)
    width = (HEADS + kv_heads * (2 if sliding else 1)) * head_dim
    q_out = pool.randn(rows, HEADS, head_dim)
    angles = torch.rand(4096, pairs, device=pool.device)
    caches = pool.views(256, PAGE, kv_heads, head_dim, at_most=2)
    positions = torch.arange(rows, device=pool.device)
    norm_weight = pool.randn(head_dim)
    calls: Calls = [functools.partial(
        norm_rope_and_cache, pool.randn(rows, width), norm_weight,
        norm_weight if sliding else None, angles, angles, positions, positions, q_out, caches[0],
        caches[1] if sliding else None, pdl=True,
    ) for _ in range(3)]  # fmt: skip
    calls[0]()
    return calls, 0.0, 2 * rows * width
