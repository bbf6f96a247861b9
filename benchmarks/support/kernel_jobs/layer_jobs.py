"""Jobs of `kernel_times.py` for whole layers, as the decode path without `layer_tail` runs them."""

import functools
from collections.abc import Callable, Mapping

import torch
from support.kernel_jobs.graph_timing import BufferPool, KernelTiming, time_calls
from support.kernel_jobs.job_list import HEADS, HIDDEN, INNER, LAYER_SETTINGS, PAGE

from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import default_decode_config, paged_decode
from eightfold.kernels.attention.split_kv import decode_workspace_size
from eightfold.kernels.layers.linear_few_rows import LinearConfig, linear_few_rows
from eightfold.kernels.layers.rms_norm import add_rms_norm
from eightfold.kernels.layers.rotary_embedding import norm_rope_and_cache

ROWS = 8
Calls = list[Callable[[], object]]


def time_layers(pool: BufferPool, context: int, settings: str, once: bool) -> KernelTiming | None:
    """Time four sliding layers and a global one.

    Args:
        pool: the buffers.
        context: tokens of each sequence.
        settings: a key of `LAYER_SETTINGS`, which configures the linear layers.
        once: run without timing.
    """
    pool.reset()
    shared = _shared_tensors(pool)
    calls: Calls = []
    read = 0
    for sliding in (True, True, True, True, False):
        attention, attention_read = _attention_calls(pool, sliding, context, shared, settings)
        calls += attention + _feed_forward_calls(pool, shared, settings)
        read += attention_read + 2 * 3 * HIDDEN * INNER

    def run() -> None:
        for call in calls:
            call()

    run()
    if once:
        return None
    name = f"layers 4+1, {context}"
    return KernelTiming(name, settings, time_calls([run], 5), read / 1e9, 0.0)


def _shared_tensors(pool: BufferPool) -> dict[str, torch.Tensor]:
    """Return the tensors that all layers of a step share."""
    return {
        "weight": pool.randn(HIDDEN), "residual": pool.randn(ROWS, HIDDEN),
        "x": pool.randn(ROWS, HIDDEN), "hidden": pool.randn(ROWS, INNER),
        "y": pool.randn(ROWS, HIDDEN), "angles": torch.rand(65536, 128, device=pool.device),
    }  # fmt: skip


def _attention_calls(
    pool: BufferPool, sliding: bool, context: int, shared: Mapping[str, torch.Tensor], settings: str
) -> tuple[Calls, int]:
    """Return the launches of a layer up to the norm after attention, and the bytes they read."""
    configs, part = LAYER_SETTINGS[settings], functools.partial
    kv_heads, head_dim = (16, 256) if sliding else (4, 512)
    copies = 2 if sliding else 1
    width = (HEADS + kv_heads * copies) * head_dim
    x, residual, weight = (shared[name] for name in ("x", "residual", "weight"))
    norm_weight, angles = pool.randn(head_dim), shared["angles"][:, : 128 if sliding else 64]
    cos, sin = angles.cos().contiguous(), angles.sin().contiguous()
    qkv, q = pool.randn(ROWS, width), pool.randn(ROWS, HEADS, head_dim)
    caches, attend, attended = _attend_call(
        pool, sliding, context, q, None if sliding else OneCopy(norm_weight, cos, sin)
    )
    start = torch.zeros(ROWS, dtype=torch.int64, device=pool.device)
    project, y = _linear_call(configs.get(f"o {'sliding' if sliding else 'global'}"), shared["y"])
    qkv_config = configs.get("qkv sliding" if sliding else "qk global")
    calls: Calls = [
        part(linear_few_rows, x, pool.take(width, HIDDEN), qkv, config=qkv_config, pdl=True),
        part(norm_rope_and_cache, qkv, norm_weight, norm_weight if sliding else None, cos, sin,
             start, start, q, *caches, pdl=True),
        attend,
        part(project, attended.view(ROWS, -1), pool.take(HIDDEN, HEADS * head_dim)),
        part(add_rms_norm, y, residual, weight, weight, x, pdl=True),
    ]  # fmt: skip
    held = min(context, 1024) if sliding else context
    read = ROWS * held * kv_heads * head_dim * 2 * copies
    return calls, read + 2 * (width * HIDDEN + HIDDEN * HEADS * head_dim)


def _attend_call(
    pool: BufferPool, sliding: bool, context: int, q: torch.Tensor, one_copy: OneCopy | None
) -> tuple[tuple[torch.Tensor, torch.Tensor | None], Callable[[], object], torch.Tensor]:
    """Return the caches of a layer, its call of the attention kernel, and the call's output."""
    kv_heads, head_dim = (16, 256) if sliding else (4, 512)
    first = max(0, context - 1024) // PAGE * PAGE if sliding else 0
    pages = -(-context // PAGE) - first // PAGE
    shape = (ROWS * pages + 1, PAGE, kv_heads, head_dim)
    caches = (pool.take(*shape), pool.take(*shape) if sliding else None)
    table = (torch.randperm(ROWS * pages, device=pool.device).int() + 1).view(ROWS, pages)
    firsts = torch.full((ROWS,), first, dtype=torch.int32, device=pool.device)
    lens = torch.full((ROWS,), context, dtype=torch.int32, device=pool.device)
    out, workspace = torch.empty_like(q), None
    if not sliding:
        config = default_decode_config(0, one_copy=True)
        size = decode_workspace_size(
            ROWS, 1, HEADS, head_dim, pages * PAGE, config.split_tokens, config.short_split_tokens
        )
        workspace = torch.empty(size, device=pool.device)
    call = functools.partial(
        paged_decode, q, *caches, table, lens, out, first_pos=firsts,
        window=1024 if sliding else 0, workspace=workspace, pdl=True, one_copy=one_copy,
    )  # fmt: skip
    return caches, call, out


def _feed_forward_calls(
    pool: BufferPool, shared: Mapping[str, torch.Tensor], settings: str
) -> Calls:
    """Return the launches of a layer after the norm that follows attention."""
    configs, part = LAYER_SETTINGS[settings], functools.partial
    x, residual, weight, hidden = (shared[key] for key in ("x", "residual", "weight", "hidden"))
    down, y = _linear_call(configs.get("down"), shared["y"])
    return [
        part(linear_few_rows, x, pool.take(2 * INNER, HIDDEN), hidden, gated=True,
             config=configs.get("gate_up"), pdl=True),
        part(down, hidden, pool.take(HIDDEN, INNER)),
        part(add_rms_norm, y, residual, weight, weight, x, pdl=True),
    ]  # fmt: skip


def _linear_call(
    config: LinearConfig | None, y: torch.Tensor
) -> tuple[Callable[..., object], torch.Tensor]:
    """Return a linear layer that writes to `y`, or to new partial sums, and what it writes to."""
    if config and config.splits > 1:
        y = torch.empty(config.splits, *y.shape, device=y.device)
    return functools.partial(linear_few_rows, out=y, config=config, pdl=True), y
