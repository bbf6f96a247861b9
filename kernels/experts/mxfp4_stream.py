"""A layer's experts in MXFP4 for few rows, by the Hopper kernel ``mxfp4_stream.cu``."""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.cuda_driver import TENSOR_MAP_BYTES, CudaKernel, TensorMap, tensor_map
from ..cuda.nvrtc import load_kernel
from ..triton_launch import multiprocessor_count
from .expert_weights import ExpertWeights
from .mxfp4_reference import BLOCK, BLOCK_BYTES
from .pair_launch import (
    FALLBACK,
    SHARED_BYTES,
    STREAM_BYTES,
    PairLaunch,
    kernel_arguments,
    stream_fits,
)

SOURCE = "../experts/cuda/mxfp4_stream.cu"
MOST_EXPERTS = 192  # whose lists fit into STREAM_BYTES if the kernel chooses experts
ROWS_AT_ONCE = 64  # weight rows
SLICE_BLOCKS, SLICE_BYTES = 8, 8192  # of a stage, in each row and in all
THREADS, CONSUMERS = 480, 12


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Configuration of both products.

    Attributes:
        stages: parts of the ring of each of three groups of warps, each of 64 weight rows by 256
            columns.
        tile_rows: most pairs of one expert that are computed together, 4 or 8.
    """

    stages: int = 5
    tile_rows: int = 4


_Map = ctypes.c_ubyte * TENSOR_MAP_BYTES


class _Weights(ctypes.Structure):  # Weights in mxfp4_stream.cu
    _fields_ = (("gate_up", _Map), ("down", _Map))


def shared_bytes(inputs: int, config: StreamConfig) -> int:
    """Return the dynamic shared memory of a program; ``inputs`` are those of the wider product."""
    blocks, groups = inputs // BLOCK, config.tile_rows // 4
    x = -(-blocks // SLICE_BLOCKS) * SLICE_BLOCKS * 256 * groups
    scales = 3 * -(-ROWS_AT_ONCE * blocks // 128) * 128
    parts = 2 * CONSUMERS * 4 * groups * 128
    return 3 * config.stages * SLICE_BYTES + x + scales + parts + STREAM_BYTES


def kernel_defines(
    experts: ExpertWeights, top_k: int, config: StreamConfig, routed: int = 0
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    return (
        ("HAS_BIAS", int(experts.gate_up_bias is not None)),
        ("HIDDEN", experts.hidden),
        ("INNER", experts.inner),
        ("EXPERTS", experts.experts),
        ("TOP_K", top_k),
        ("ROUTED", routed),
        ("STAGES", config.stages),
        ("TILES_N", config.tile_rows // 4),
    )


def _kernel(
    top_k: int, experts: ExpertWeights, config: StreamConfig, routed: int = 0
) -> CudaKernel | None:
    return load_kernel(
        experts.gate_up_rows.device,
        "experts_mxfp4_stream",
        kernel_defines(experts, top_k, config, routed),
        shared_bytes(max(experts.hidden, experts.inner), config),
        FALLBACK,
        SOURCE,
    )


def mxfp4_stream_fits(
    rows: int, top_k: int, experts: ExpertWeights, config: StreamConfig | None = None
) -> bool:
    """Return whether ``mxfp4_stream`` supports these experts and this many rows.

    It takes at most 1,024 pairs, 32 experts for a row, and ``MOST_EXPERTS`` experts in a layer.
    Compiles the kernel.
    """
    config = config or StreamConfig()
    stored = [experts.gate_up_blocks, experts.gate_up_scales]
    stored += [experts.down_blocks, experts.down_scales]
    widest = max(experts.hidden, experts.inner)
    return (
        stream_fits(rows, top_k, experts, MOST_EXPERTS)
        and experts.is_mxfp4
        and experts.interleaved
        and experts.activation == "clamped_swiglu"
        and experts.inner % 16 == 0
        and experts.hidden % 16 == 0
        and shared_bytes(widest, config) <= SHARED_BYTES
        and all(each is not None and each.data_ptr() % 16 == 0 for each in stored)
        and _kernel(top_k, experts, config) is not None
    )


def mxfp4_stream(launch: PairLaunch, experts: ExpertWeights, config: StreamConfig) -> None:
    """Compute all pairs' weighted outputs, with experts that ``mxfp4_stream_fits`` accepts."""
    kernel = _kernel(launch.top_k, experts, config, launch.routed)
    assert kernel is not None
    maps = _Weights(_slices_map(experts.gate_up_rows), _slices_map(experts.down_rows))
    stored = (experts.gate_up_scales, experts.gate_up_bias, experts.down_scales, experts.down_bias)
    arguments = [maps, *kernel_arguments(launch.stream_tensors(*stored), launch.rows)]
    kernel.launch(multiprocessor_count(launch.x.device), THREADS, arguments, launch.pdl)


def _slices_map(rows: torch.Tensor) -> ctypes.Array[ctypes.c_ubyte]:
    """Describe weight rows [experts, rows, bytes] for copies of slices, in units of 2 bytes."""
    experts, count, row_bytes = rows.shape
    found: TensorMap = tensor_map(
        rows.data_ptr(),
        sizes=(row_bytes // 2, experts * count),
        strides=(row_bytes,),
        box=(SLICE_BLOCKS * BLOCK_BYTES // 2, ROWS_AT_ONCE),
    )
    return _Map.from_buffer_copy(found)
