"""Jobs of `kernel_times.py` for linear layers: alone, by cuBLAS, and in a layer's tail."""

import functools
from collections.abc import Callable

import torch
from support.kernel_jobs.graph_timing import (
    BufferPool,
    KernelTiming,
    relative_error,
    time_calls,
)
from support.kernel_jobs.job_list import HIDDEN, INNER, LINEAR_LAYERS, describe

from eightfold.kernels.layers.gated_activation import gated_gelu
from eightfold.kernels.layers.layer_tail import (
    COUNTERS,
    LayerTailWeights,
    layer_tail,
    layer_tail_reference,
)
from eightfold.kernels.layers.linear_few_rows import (
    LinearConfig,
    linear_few_rows,
    linear_few_rows_reference,
)
from eightfold.kernels.layers.linear_many_rows import linear_many_rows, linear_many_rows_reference


def time_few_rows(
    pool: BufferPool, name: str, rows: int, config: LinearConfig, once: bool
) -> KernelTiming | None:
    """Time a linear layer of few rows."""
    n, inner, gated = LINEAR_LAYERS[name]
    weights = pool.views(n * (2 if gated else 1), inner, at_most=1 if once else 6)
    torch.manual_seed(1)
    x = pool.randn(rows, inner)
    if config.splits > 1:
        out = torch.full((config.splits, rows, n), float("nan"), device=pool.device)
    else:
        out = torch.full((rows, n), float("nan"), device=pool.device).bfloat16()
    run = functools.partial(linear_few_rows, x, gated=gated, config=config, pdl=True, out=out)
    run(weight=weights[0])
    if once:
        return None
    checked = slice(0, 512)
    weight_rows = weights[0][checked]
    if gated:
        weight_rows = torch.cat([weight_rows, weights[0][n:][checked]])
    result = out.sum(0) if config.splits > 1 else out
    expected = linear_few_rows_reference(x, weight_rows, gated)
    error = relative_error(result[:, checked], expected)
    assert not result.isnan().any()
    microseconds = time_calls([functools.partial(run, weight=w) for w in weights] * 2)
    read = weights[0].numel() * 2 / 1e9
    return KernelTiming(f"{name} {rows}", describe(config), microseconds, read, error)


def time_layer_tail(pool: BufferPool, kind: str, rows: int, once: bool) -> KernelTiming | None:
    """Time `layer_tail` in sequence over layers with their own weights."""
    attended, following = (8192, 16384) if kind == "sliding" else (16384, 18432)
    sizes = [(HIDDEN, attended), (2 * INNER, HIDDEN), (HIDDEN, INNER), (following, HIDDEN)]
    norm = torch.ones(HIDDEN, device=pool.device).bfloat16()
    pool.reset()
    layers = []
    for _ in range(1 if once else 5):
        output, gate_up, down, qkv = (pool.take(*size) for size in sizes)
        layers.append(LayerTailWeights(output, gate_up, down, qkv, norm, norm, norm, norm, 1.0))
    x, residual, out = (pool.randn(rows, n) for n in (attended, HIDDEN, following))
    buffers = (pool.randn(rows, HIDDEN), pool.randn(rows, HIDDEN), pool.randn(rows, INNER))
    counters = torch.zeros(len(layers), COUNTERS, dtype=torch.int32, device=pool.device)

    def run() -> None:
        counters.zero_()
        for layer, layer_counters in zip(layers, counters, strict=True):
            layer_tail(x, residual, layer, buffers, out, layer_counters, pdl=True)

    run()
    if once:
        return None
    before = residual.clone()
    counters.zero_()
    layer_tail(x, residual, layers[0], buffers, out, counters[0])
    expected = layer_tail_reference(x, before, layers[0])[2]
    assert expected is not None
    error = relative_error(out, expected)
    read = sum(n * k for n, k in sizes) * 2 / 1e9
    microseconds = time_calls([run], 5) / len(layers)
    return KernelTiming(f"layer_tail {kind} {rows}", "", microseconds, read, error)


def time_many_rows(pool: BufferPool, rows: int, own: bool, once: bool) -> KernelTiming | None:
    """Time the linear layers of four sliding layers and a global one, until power limits them.

    Gigabytes holds teraflops.

    Args:
        pool: the buffers.
        rows: rows of the input.
        own: use `linear_many_rows`; otherwise cuBLAS and `gated_gelu`.
        once: run without timing.
    """
    flops, error = 0, 0.0
    hidden, ungated = pool.randn(rows, INNER), pool.randn(rows, 2 * INNER)
    pool.reset()
    calls: list[Callable[[], object]] = []
    attention = [("qkv sliding", "o sliding")] * 4 + [("qk global", "o global")]
    for name in (name for pair in attention for name in (*pair, "gate_up", "down")):
        n, inner, gated = LINEAR_LAYERS[name]
        weight, x = pool.take(n * (2 if gated else 1), inner), pool.randn(rows, inner)
        out = hidden if gated else pool.randn(rows, n)
        flops += 2 * rows * weight.numel()
        if own:
            linear = functools.partial(linear_many_rows, x, weight, out, gated=gated, pdl=True)
            linear()
            if not once:
                expected = linear_many_rows_reference(x[:8], weight, gated)
                error = max(error, relative_error(out[:8], expected))
            calls.append(linear)
        else:
            calls.append(functools.partial(torch.mm, x, weight.T, out=ungated if gated else out))
            calls += [functools.partial(gated_gelu, ungated, out)] if gated else []

    def run() -> None:
        for call in calls:
            call()

    run()
    if once:
        return None
    config = "linear_many_rows" if own else "cuBLAS and gated_gelu"
    microseconds = time_calls([run], 250)
    return KernelTiming(f"products 4+1, {rows}", config, microseconds, flops / 1e12, error)
