"""The experts in bfloat16 of few rows by the Hopper kernel ``bf16_stream.cu``."""

import ctypes
from dataclasses import dataclass
from typing import get_args

import torch

from ..cuda.cuda_driver import CudaKernel
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count
from .expert_weights import Activation, ExpertWeights
from .router import ROUTED, Routing

FALLBACK = "another kernel computes experts"
SOURCE = "../experts/cuda/bf16_stream.cu"
MOST_PAIRS = 1024  # that the kernel looks through
TILE_ROWS, GROUP = 8, 16  # pairs, and weight rows
LARGEST_STAGE = 34 << 10
SHARED_BYTES = 232448
OTHER_BYTES = 12288  # of shared memory, beside the ring, x and the parts


@dataclass(frozen=True, slots=True)
class Bf16StreamConfig:
    """Configuration of both products.

    Attributes:
        consumers: warps that multiply; they divide the columns.
        most_stages: parts of the ring, if shared memory suffices for them.
    """

    consumers: int = 8
    most_stages: int = 4


def _column_parts(columns: int) -> int:
    """Into how many parts rows are divided, so that 16 of them fit into a stage; 0 if none fit."""
    for parts in (1, 2, 4, 8):
        divisible = columns % (GROUP * parts) == 0
        if divisible and _stage_bytes(columns, parts) <= LARGEST_STAGE:
            return parts
    return 0


def _stage_bytes(columns: int, parts: int) -> int:
    return GROUP * (columns // parts * 2 + 16)


def _sizes(experts: ExpertWeights, config: Bf16StreamConfig) -> tuple[int, int, int]:
    """Return the number of stages that fit, the bytes of one, and those of all shared memory."""
    widths = (experts.hidden, experts.inner)
    stage = max(_stage_bytes(width, _column_parts(width)) for width in widths)
    parts = 2 * config.consumers * 4 * 128
    x = 2 * TILE_ROWS * (max(widths) * 2 + 16)
    stages = min(config.most_stages, (SHARED_BYTES - parts - x - OTHER_BYTES) // stage)
    return stages, stage, stages * stage + parts + x + OTHER_BYTES


def kernel_defines(
    experts: ExpertWeights, top_k: int, config: Bf16StreamConfig, routed: int = 0
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    return (
        ("INTERLEAVED", int(experts.interleaved)),
        ("HAS_BIAS", int(experts.gate_up_bias is not None)),
        ("ACTIVATION", get_args(Activation).index(experts.activation)),
        ("HIDDEN", experts.hidden),
        ("INNER", experts.inner),
        ("EXPERTS", experts.experts),
        ("TOP_K", top_k),
        ("ROUTED", routed),
        ("STAGES", _sizes(experts, config)[0]),
        ("CONSUMERS", config.consumers),
        ("GATE_UP_PARTS", _column_parts(experts.hidden)),
        ("DOWN_PARTS", _column_parts(experts.inner)),
        ("DOWN_GROUPS", 1),
    )


def _kernel(
    top_k: int, experts: ExpertWeights, config: Bf16StreamConfig, routed: int = 0
) -> CudaKernel | None:
    defines, shared = kernel_defines(experts, top_k, config, routed), _sizes(experts, config)[2]
    device = experts.gate_up_rows.device
    return load_kernel(device, "experts_bf16_stream", defines, shared, FALLBACK, SOURCE)


def bf16_stream_fits(
    rows: int, top_k: int, experts: ExpertWeights, config: Bf16StreamConfig | None = None
) -> bool:
    """Return whether ``bf16_stream`` supports these experts and so many rows.

    Compiles the kernel.
    """
    config = config or Bf16StreamConfig()
    biases, widths = (experts.gate_up_bias, experts.down_bias), (experts.hidden, experts.inner)
    return (
        is_hopper(experts.gate_up_rows.device)
        and experts.gate_up_rows.dtype == torch.bfloat16
        and rows * top_k <= MOST_PAIRS
        and experts.inner % 8 == 0
        and all(_column_parts(width) > 0 for width in widths)
        and _sizes(experts, config)[0] >= 2
        and len({bias is None for bias in biases}) == 1
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
        and all(each.data_ptr() % 16 == 0 for each in (experts.gate_up_rows, experts.down_rows))
        and _kernel(top_k, experts, config) is not None
    )


def bf16_stream(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    routing: Routing | None,
    experts: ExpertWeights,
    h: torch.Tensor,
    parts: torch.Tensor,
    counters: torch.Tensor,
    config: Bf16StreamConfig,
    *,
    pdl: bool,
) -> None:
    """Compute the weighted outputs of all pairs.

    Args:
        x: bfloat16 [rows, hidden].
        ids: int32 [rows, top_k].
        weights: float32 [rows, top_k].
        routing: from which ids and weights are computed, and written; ``None`` if they are there.
        experts: ``bf16_stream_fits`` accepts them.
        h: bfloat16 memory of at least rows * top_k * inner elements.
        parts: float32 [top_k, rows, hidden], written.
        counters: int32, zeros before the first call; see ``experts_forward``.
        config: configuration.
        pdl: launch with programmatic dependent launch.
    """
    rows, top_k = ids.shape
    kernel = _kernel(top_k, experts, config, ROUTED[None if routing is None else routing.kind])
    logits = None if routing is None else routing.logits
    scale = None if routing is None else routing.expert_scale
    assert kernel is not None
    tensors = (
        x, ids, weights, logits, scale, experts.gate_up_rows, experts.gate_up_bias,
        experts.down_rows, experts.down_bias, h, parts, counters,
    )  # fmt: skip
    pointers = [ctypes.c_void_p(0 if t is None else t.data_ptr()) for t in tensors]
    threads = 32 * (config.consumers + 3)  # one finishes, two copy
    kernel.launch(
        multiprocessor_count(x.device),
        threads,
        [*pointers, ctypes.c_int(rows)],
        pdl,
    )
