"""Jobs of `kernel_times.py` for mixtures of experts, in the shapes of known models."""

import functools
from dataclasses import replace

import torch
from support.kernel_jobs.graph_timing import (
    BufferPool,
    KernelTiming,
    relative_error,
    time_calls,
)
from support.kernel_jobs.job_list import EXPERT_LAYERS

from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.experts_forward import (
    experts_forward,
    experts_reference,
    experts_workspace_size,
)
from eightfold.kernels.experts.router import route

LAYERS = 3  # with weights of their own, so that the L2 cache does not help
POPULARITY = 0.5  # standard deviation of the offsets of experts' logits, those of a row having 1


def time_few_experts(pool: BufferPool, model: str, rows: int, once: bool) -> KernelTiming | None:
    """Time few rows; the bytes counted are those of the experts that are really touched."""
    return _time(pool, model, rows, once, arithmetic=False)


def time_many_experts(pool: BufferPool, model: str, rows: int, once: bool) -> KernelTiming | None:
    """Time many rows. Gigabytes holds teraflops."""
    return _time(pool, model, rows, once, arithmetic=True)


def _time(
    pool: BufferPool, model: str, rows: int, once: bool, arithmetic: bool
) -> KernelTiming | None:
    experts, hidden, inner, top_k = EXPERT_LAYERS[model][:4]
    torch.manual_seed(1)
    pool.reset()
    layers = [_weights(pool, model) for _ in range(1 if once else LAYERS)]
    x = pool.randn(rows, hidden)
    routes = [_routes(pool, rows, experts, top_k) for _ in range(2 * len(layers))]
    out = torch.full((rows, hidden), float("nan"), device=pool.device).bfloat16()
    size = experts_workspace_size(rows, top_k, layers[0])
    workspace = torch.empty(size, device=pool.device)
    calls = [
        functools.partial(
            experts_forward, x, *routes[i], layers[i % len(layers)], out, workspace, pdl=True
        )
        for i in range(len(routes))
    ]
    calls[0]()
    if once:
        return None
    checked = slice(0, 16)
    ids, weights = (each[checked] for each in routes[0])
    expected = experts_reference(x[checked], ids, weights, layers[0], torch.float32)
    error = relative_error(out[checked], expected)
    assert not out.isnan().any()
    touched = sum(len(ids.unique()) for ids, _ in routes) / len(routes)
    amount = touched * layers[0].stored_bytes() / 1e9
    if arithmetic:
        amount = rows * top_k * 3 * hidden * inner * 2 / 1e12
    name = f"experts {model} {rows}"
    return KernelTiming(name, f"{touched:.1f} touched", time_calls(calls), amount, error)


def _routes(
    pool: BufferPool, rows: int, experts: int, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Route by random logits, in which some experts are more popular than others."""
    logits = torch.randn(rows, experts, device=pool.device)
    logits += POPULARITY * torch.randn(1, experts, device=pool.device)
    ids = torch.empty(rows, top_k, dtype=torch.int32, device=pool.device)
    weights = torch.empty(rows, top_k, device=pool.device)
    return route(logits, top_k, "topk_softmax", ids, weights)


def _weights(pool: BufferPool, model: str) -> ExpertWeights:
    """Take a layer's weights from the pool. As MXFP4, its bytes are any codes."""
    experts, hidden, inner, _, packed, activation = EXPERT_LAYERS[model]
    if not packed:
        return ExpertWeights(
            activation=activation,
            gate_up=pool.take(experts, 2 * inner, hidden),
            down=pool.take(experts, hidden, inner),
        )

    def blocks(rows: int, columns: int) -> torch.Tensor:
        taken = pool.take(experts, rows, columns // 4).view(torch.uint8)
        return taken.view(experts, rows, columns // 32, 16)

    def scales(rows: int, columns: int) -> torch.Tensor:
        shape = (experts, rows, columns // 32)
        return torch.randint(116, 122, shape, dtype=torch.uint8, device=pool.device)

    weights = ExpertWeights(
        activation=activation,
        interleaved=True,
        gate_up_blocks=blocks(2 * inner, hidden),
        gate_up_scales=scales(2 * inner, hidden),
        down_blocks=blocks(hidden, inner),
        down_scales=scales(hidden, inner),
    )
    return replace(
        weights,
        gate_up_bias=pool.randn(experts, 2 * inner),
        down_bias=pool.randn(experts, hidden),
    )
