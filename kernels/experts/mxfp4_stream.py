"""The experts in MXFP4 of few rows by the Hopper kernel ``mxfp4_stream.cu``."""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.cuda_driver import CudaKernel
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count
from .expert_weights import ExpertWeights
from .mxfp4_reference import BLOCK, BLOCK_BYTES

FALLBACK = "another kernel computes experts"
SOURCE = "../experts/cuda/mxfp4_stream.cu"
MOST_PAIRS = 2048  # that the kernel looks through
MOST_TILES = 16  # of a program
ROWS_AT_ONCE = 32  # weight rows
SHARED_BYTES = 232448
OTHER_BYTES = 7168  # of shared memory, beside the ring, x and the parts


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Configuration of both products.

    Attributes:
        stages: parts of the ring, each of 32 weight rows.
        consumers: warps that multiply; they divide the columns in chunks of 128.
        tile_rows: most pairs of one expert that are computed together, 8 or 16.
    """

    stages: int = 2
    consumers: int = 12
    tile_rows: int = 8


def shared_bytes(inputs: int, config: StreamConfig) -> int:
    """Return the dynamic shared memory of a program."""
    blocks = inputs // BLOCK
    ring = config.stages * ROWS_AT_ONCE * blocks * (BLOCK_BYTES + 1)
    parts = config.consumers * config.tile_rows * 256
    x = inputs * 2 + 16
    return ring + config.tile_rows * x + parts + OTHER_BYTES


def kernel_defines(
    experts: ExpertWeights, top_k: int, config: StreamConfig, gated: bool
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    bias = experts.gate_up_bias if gated else experts.down_bias
    columns = (experts.hidden, experts.inner)
    return (
        ("GATED", int(gated)),
        ("HAS_BIAS", int(bias is not None)),
        ("INPUTS", columns[0 if gated else 1]),
        ("OUTPUTS", columns[1 if gated else 0]),
        ("EXPERTS", experts.experts),
        ("TOP_K", top_k),
        ("STAGES", config.stages),
        ("CONSUMERS", config.consumers),
        ("TILES_N", config.tile_rows // 8),
    )


def _load_kernel(
    device: torch.device, defines: tuple[tuple[str, object], ...]
) -> CudaKernel | None:
    macros = dict(defines)
    stages, consumers, tiles = (int(str(macros[n])) for n in ("STAGES", "CONSUMERS", "TILES_N"))
    config = StreamConfig(stages, consumers, tiles * 8)
    shared = shared_bytes(int(str(macros["INPUTS"])), config)
    return load_kernel(device, "experts_mxfp4_stream", defines, shared, FALLBACK, SOURCE)


def _kernels(
    top_k: int, experts: ExpertWeights, config: StreamConfig
) -> tuple[CudaKernel | None, CudaKernel | None]:
    device = experts.gate_up_rows.device
    gate_up = kernel_defines(experts, top_k, config, True)
    down = kernel_defines(experts, top_k, config, False)
    return _load_kernel(device, gate_up), _load_kernel(device, down)


def mxfp4_stream_fits(
    rows: int, top_k: int, experts: ExpertWeights, config: StreamConfig | None = None
) -> bool:
    """Return whether ``mxfp4_stream`` supports these experts and so many rows.

    Compiles the kernels.
    """
    config = config or StreamConfig()
    biases = (experts.gate_up_bias, experts.down_bias)
    stored = [experts.gate_up_blocks, experts.gate_up_scales]
    stored += [experts.down_blocks, experts.down_scales]
    widest = max(experts.hidden, experts.inner)
    return (
        is_hopper(experts.gate_up_rows.device)
        and experts.is_mxfp4
        and experts.interleaved
        and experts.activation == "clamped_swiglu"
        and rows * top_k <= MOST_PAIRS
        and experts.inner % 16 == 0
        and experts.hidden % ROWS_AT_ONCE == 0
        and shared_bytes(widest, config) <= SHARED_BYTES
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
        and all(each is not None and each.data_ptr() % 16 == 0 for each in stored)
        and all(kernel is not None for kernel in _kernels(top_k, experts, config))
    )


def mxfp4_stream(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    h: torch.Tensor,
    parts: torch.Tensor,
    config: StreamConfig,
    *,
    pdl: bool,
) -> None:
    """Compute the weighted outputs of all pairs.

    Args:
        x: bfloat16 [rows, hidden].
        ids: int32 [rows, top_k].
        weights: float32 [rows, top_k].
        experts: ``mxfp4_stream_fits`` accepts them.
        h: bfloat16 memory of at least rows * top_k * inner elements.
        parts: float32 [top_k, rows, hidden], written.
        config: configuration.
        pdl: launch with programmatic dependent launch.
    """
    rows, top_k = ids.shape
    gate_up, down = _kernels(top_k, experts, config)
    assert gate_up is not None
    assert down is not None
    threads = 32 * (config.consumers + 3)  # two finish, one copies
    programs, amount = multiprocessor_count(x.device), ctypes.c_int(rows)
    stored = (experts.gate_up_rows, experts.gate_up_scales, experts.gate_up_bias)
    arguments = [*_pointers((x, ids, weights, *stored, h)), amount]
    gate_up.launch(programs, threads, arguments, pdl)
    stored = (experts.down_rows, experts.down_scales, experts.down_bias)
    arguments = [*_pointers((h, ids, weights, *stored, parts)), amount]
    down.launch(programs, threads, arguments, pdl)


def _pointers(tensors: tuple[torch.Tensor | None, ...]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(0 if t is None else t.data_ptr()) for t in tensors]
