"""A layer's experts for few rows, by the Hopper kernel ``bf16_stream.cu``.

Their weights are in bfloat16, or stored in FP8 or 4 bits.
"""

from dataclasses import dataclass
from typing import get_args

import torch

from ..cuda.cuda_driver import CudaKernel
from ..cuda.nvrtc import load_kernel
from ..triton_launch import multiprocessor_count
from .expert_weights import Activation, ExpertWeights
from .pair_launch import (
    FALLBACK,
    SHARED_BYTES,
    STREAM_BYTES,
    PairLaunch,
    kernel_arguments,
    stream_fits,
)
from .stored.expert_stack import StoredStack

SOURCE = "../experts/cuda/bf16_stream.cu"
MOST_EXPERTS = 256  # whose lists fit into STREAM_BYTES if the kernel chooses experts
TILE_ROWS, GROUP = 8, 16  # pairs, and weight rows
BLOCK_BYTES = 32  # of a weight row that a warp multiplies at a time
LARGEST_STAGE = 34 << 10


@dataclass(frozen=True, slots=True)
class Bf16StreamConfig:
    """Configuration of both products.

    Attributes:
        consumers: warps that multiply; they divide the columns.
        most_stages: parts of the ring, if shared memory suffices for them.
        down_groups: groups of 16 weight rows of the down projection that are copied at a time.
    """

    consumers: int = 8
    most_stages: int = 4
    down_groups: int = 1


def _column_parts(row_bytes: int, groups: int = 1) -> int:
    """Return how many parts rows are cut into, so that those of a stage fit; 0 if none do."""
    for parts in (1, 2, 4, 8):
        divisible = row_bytes % (BLOCK_BYTES * parts) == 0
        if divisible and _stage_bytes(row_bytes, parts, groups) <= LARGEST_STAGE:
            return parts
    return 0


def _stage_bytes(row_bytes: int, parts: int, groups: int) -> int:
    return groups * GROUP * (row_bytes // parts + 16)


def _rows(experts: ExpertWeights, config: Bf16StreamConfig) -> tuple[tuple[int, int], ...]:
    """Return the bytes of a weight row, and the groups of rows at a time, of both products."""
    return (
        (experts.gate_up_rows.shape[2] * experts.gate_up_rows.itemsize, 1),
        (experts.down_rows.shape[2] * experts.down_rows.itemsize, config.down_groups),
    )


def _sizes(experts: ExpertWeights, config: Bf16StreamConfig) -> tuple[int, int, int]:
    """Return the number of stages that fit, the bytes of one, and those of all shared memory."""
    widths = (experts.hidden, experts.inner)
    stage = max(
        _stage_bytes(size, _column_parts(size, groups), groups)
        for size, groups in _rows(experts, config)
    )
    parts = 2 * config.consumers * 4 * 128 * config.down_groups
    x = 2 * TILE_ROWS * (max(widths) * 2 + (32 if experts.is_stacked else 16))
    stages = min(config.most_stages, (SHARED_BYTES - parts - x - STREAM_BYTES) // stage)
    return stages, stage, stages * stage + parts + x + STREAM_BYTES


def _stored_defines(experts: ExpertWeights) -> tuple[tuple[str, object], ...]:
    """Return the macros for weights that are stored in FP8 or 4 bits."""
    gate_up, down = experts.gate_up, experts.down
    if not isinstance(gate_up, StoredStack) or not isinstance(down, StoredStack):
        return ()
    return (
        ("STORED", 1 if gate_up.is_fp8 else 2),
        ("ZEROS", int(gate_up.zeros is not None)),
        ("FLOAT_SCALES", int(gate_up.scales.dtype == torch.float32)),
        ("GROUP", gate_up.columns_per_scale if max(gate_up.groups, down.groups) > 1 else 0),
        ("GATE_UP_SHARED", gate_up.rows_per_scale),
        ("DOWN_SHARED", down.rows_per_scale),
    )


def kernel_defines(
    experts: ExpertWeights, top_k: int, config: Bf16StreamConfig, routed: int = 0
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    parts = [_column_parts(*each) for each in _rows(experts, config)]
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
        ("GATE_UP_PARTS", parts[0]),
        ("DOWN_PARTS", parts[1]),
        ("DOWN_GROUPS", config.down_groups),
        *_stored_defines(experts),
    )


def _kernel(
    top_k: int, experts: ExpertWeights, config: Bf16StreamConfig, routed: int = 0
) -> CudaKernel | None:
    defines, shared = kernel_defines(experts, top_k, config, routed), _sizes(experts, config)[2]
    device = experts.gate_up_rows.device
    return load_kernel(device, "experts_bf16_stream", defines, shared, FALLBACK, SOURCE)


def scales_and_zeros(experts: ExpertWeights) -> list[torch.Tensor | None]:
    """Return what the kernel takes of stored weights besides their codes."""
    found: list[torch.Tensor | None] = []
    for stack in (experts.gate_up, experts.down):
        stored = isinstance(stack, StoredStack)
        found += (stack.scales, stack.zeros) if stored else (None, None)  # type: ignore[union-attr]
    return found


def bf16_stream_fits(
    rows: int, top_k: int, experts: ExpertWeights, config: Bf16StreamConfig | None = None
) -> bool:
    """Return whether ``bf16_stream`` supports these experts and this many rows.

    It takes at most 1,024 pairs, 32 experts for a row, and ``MOST_EXPERTS`` experts in a layer.
    Compiles the kernel.
    """
    config = config or Bf16StreamConfig()
    return (
        stream_fits(rows, top_k, experts, MOST_EXPERTS)
        and (experts.gate_up_rows.dtype == torch.bfloat16 or _stacks_fit(experts))
        and experts.inner % 8 == 0
        and experts.hidden % (GROUP * config.down_groups) == 0
        and all(_column_parts(*each) > 0 for each in _rows(experts, config))
        and _sizes(experts, config)[0] >= 2
        and all(each.data_ptr() % 16 == 0 for each in (experts.gate_up_rows, experts.down_rows))
        and _kernel(top_k, experts, config) is not None
    )


def _stacks_fit(experts: ExpertWeights) -> bool:
    """Return whether weights are stored in FP8 or 4 bits in a way that the kernel supports."""
    stacks = [each for each in (experts.gate_up, experts.down) if isinstance(each, StoredStack)]
    groups = {each.columns_per_scale for each in stacks if each.groups > 1}
    return (
        len(stacks) == 2
        and len({each.scales.dtype for each in stacks}) == 1
        and stacks[0].scales.dtype in (torch.float32, torch.bfloat16)
        and len({each.zeros is None for each in stacks}) == 1
        and len(groups) <= 1
        and (not groups or groups == {stacks[0].columns_per_scale})
        and all(group % (16 if stacks[0].is_fp8 else 32) == 0 for group in groups)
    )


def bf16_stream(launch: PairLaunch, experts: ExpertWeights, config: Bf16StreamConfig) -> None:
    """Compute all pairs' weighted outputs, with experts that ``bf16_stream_fits`` accepts."""
    kernel = _kernel(launch.top_k, experts, config, launch.routed)
    assert kernel is not None
    stored = (experts.gate_up_rows, experts.gate_up_bias, experts.down_rows, experts.down_bias)
    tensors = (*launch.stream_tensors(*stored), *scales_and_zeros(experts))
    threads = 32 * (config.consumers + 3)  # one warp finishes, two copy
    kernel.launch(
        multiprocessor_count(launch.x.device),
        threads,
        kernel_arguments(tensors, launch.rows),
        launch.pdl,
    )
