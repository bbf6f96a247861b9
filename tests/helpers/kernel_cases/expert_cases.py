"""Small experts, random routes, and calls of ``experts_forward`` for tests."""

from typing import Any

import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE
from helpers.kernel_cases.layer_cases import poisoned, randn

from eightfold.kernels.experts.expert_config import Configuration
from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.experts_forward import experts_forward, experts_workspace_size


def plain_experts(experts: int, hidden: int, inner: int, **options: Any) -> ExpertWeights:
    """Return experts in the tests' dtype; ``options`` are fields of `ExpertWeights`."""
    return ExpertWeights(
        gate_up=randn(experts, 2 * inner, hidden) * hidden**-0.5,
        down=randn(experts, hidden, inner) * inner**-0.5,
        **({"activation": "silu"} | options),
    )


def packed_experts(experts: int, hidden: int, inner: int) -> ExpertWeights:
    """Return experts in MXFP4 as gpt-oss has them, with biases."""
    generator = torch.Generator().manual_seed(experts + hidden)

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        drawn = torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)
        return drawn.to(DEVICE)

    return ExpertWeights(
        activation="clamped_swiglu",
        interleaved=True,
        gate_up_blocks=draw(0, 256, experts, 2 * inner, hidden // 32, 16),
        gate_up_scales=draw(120, 126, experts, 2 * inner, hidden // 32),
        down_blocks=draw(0, 256, experts, hidden, inner // 32, 16),
        down_scales=draw(118, 124, experts, hidden, inner // 32),
        gate_up_bias=randn(experts, 2 * inner),
        down_bias=randn(experts, hidden),
    )


def random_routes(rows: int, top_k: int, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and weights of experts, all different in a row."""
    generator = torch.Generator().manual_seed(rows)
    order = torch.rand(rows, experts, generator=generator).argsort(1)
    weights = torch.rand(rows, top_k, generator=generator)
    return order[:, :top_k].int().contiguous().to(DEVICE), weights.to(DEVICE)


def run(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    config: Configuration | None = None,
    parts: bool = False,
) -> torch.Tensor:
    """Run ``experts_forward`` with memory full of NaN; with ``parts``, return them."""
    rows, top_k = ids.shape
    size = experts_workspace_size(rows, top_k, experts, x.dtype)
    workspace = poisoned(size, dtype=torch.float32)
    shape = (top_k, *x.shape) if parts else x.shape
    out = poisoned(*shape, dtype=torch.float32 if parts else DTYPE)
    return experts_forward(x, ids, weights, experts, out, workspace, config=config)
