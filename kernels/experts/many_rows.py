"""A layer's experts for many rows, by ``many_rows_bf16.cu`` and ``many_rows_mxfp4.cu``."""

import ctypes
from dataclasses import dataclass
from typing import get_args

import torch

from ..cuda.cuda_driver import CudaKernel
from ..cuda.nvrtc import is_hopper, load_kernel
from .expert_weights import Activation, ExpertWeights
from .grouping import PairGroups
from .mxfp4_reference import BLOCK
from .pair_launch import FALLBACK, kernel_arguments

SOURCES = {
    False: "../experts/cuda/many_rows_bf16.cu",
    True: "../experts/cuda/many_rows_mxfp4.cu",
}
"""By whether weights are in MXFP4."""
THREADS = 256
WEIGHT_ROWS = 256  # of a program
MOST_ROWS = 128  # pairs of a tile
RING_BYTES = {False: 229376, True: 204800}
SHARED_BYTES = 230400  # besides what the kernel declares


@dataclass(frozen=True, slots=True)
class ManyRowsConfig:
    """Configuration of both products.

    Attributes:
        tile_rows: most pairs of a tile, at most 128.
    """

    tile_rows: int = MOST_ROWS


def kernel_defines(
    experts: ExpertWeights, top_k: int, gated: bool
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    bias = experts.gate_up_bias if gated else experts.down_bias
    columns = (experts.hidden, experts.inner)
    return (
        ("MXFP4", int(experts.is_mxfp4)),
        ("GATED", int(gated)),
        ("INTERLEAVED", int(experts.interleaved)),
        ("ACTIVATION", get_args(Activation).index(experts.activation)),
        ("HAS_BIAS", int(bias is not None)),
        ("INPUTS", columns[0 if gated else 1]),
        ("OUTPUTS", columns[1 if gated else 0]),
        ("TOP_K", top_k),
    )


def _shared_bytes(inputs: int, packed: bool) -> int:
    """Dynamic shared memory: the ring, all scales of MXFP4, and what aligns them."""
    return RING_BYTES[packed] + (WEIGHT_ROWS * (inputs // BLOCK) if packed else 0) + 1024


def _load_kernel(
    device: torch.device, defines: tuple[tuple[str, object], ...]
) -> CudaKernel | None:
    macros = dict(defines)
    packed = macros["MXFP4"] == 1
    shared = _shared_bytes(int(str(macros["INPUTS"])), packed)
    return load_kernel(device, "experts_many_rows", defines, shared, FALLBACK, SOURCES[packed])


def _kernels(top_k: int, experts: ExpertWeights) -> tuple[CudaKernel | None, CudaKernel | None]:
    device = experts.gate_up_rows.device
    gate_up = kernel_defines(experts, top_k, True)
    down = kernel_defines(experts, top_k, False)
    return _load_kernel(device, gate_up), _load_kernel(device, down)


def many_rows_fits(top_k: int, experts: ExpertWeights) -> bool:
    """Return whether ``many_rows_forward`` supports these experts.

    Compiles the kernels.
    """
    biases = (experts.gate_up_bias, experts.down_bias)
    widths = (experts.hidden, experts.inner)
    packed = experts.is_mxfp4
    return (
        is_hopper(experts.gate_up_rows.device)
        and experts.gate_up_rows.dtype in (torch.bfloat16, torch.uint8)
        and (not packed or (experts.interleaved and experts.activation == "clamped_swiglu"))
        and all(width % (16 if packed else 8) == 0 for width in widths)
        and _shared_bytes(max(widths), packed) <= SHARED_BYTES
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
        and all(each.data_ptr() % 16 == 0 for each in (experts.gate_up_rows, experts.down_rows))
        and all(each is not None for each in _kernels(top_k, experts))
    )


def many_rows_forward(
    x: torch.Tensor,
    groups: PairGroups,
    weights: torch.Tensor,
    experts: ExpertWeights,
    h: torch.Tensor,
    parts: torch.Tensor,
    *,
    pdl: bool,
) -> None:
    """Compute the weighted outputs of all pairs.

    Args:
        x: bfloat16 [rows, hidden]; for MXFP4 padded to 128, columns permuted in chunks of 128.
        groups: the pairs, sorted.
        weights: float32 [rows, top_k].
        experts: ``many_rows_fits`` accepts them.
        h: bfloat16 memory of pairs times inner, for MXFP4 padded to 128.
        parts: bfloat16 [top_k, rows, hidden], written.
        pdl: launch with programmatic dependent launch.
    """
    rows, top_k = weights.shape
    gate_up, down = _kernels(top_k, experts)
    assert gate_up is not None
    assert down is not None
    tiles = groups.tiles.shape[1]
    shared = (groups.order, groups.tiles, weights)
    stored = (experts.gate_up_rows, experts.gate_up_scales, experts.gate_up_bias)
    tensors = (x, *shared, *stored, h)
    arguments = [*kernel_arguments(tensors, rows), ctypes.c_int(tiles)]
    gate_up.launch(tiles * -(-experts.inner // 128), THREADS, arguments, pdl)
    stored = (experts.down_rows, experts.down_scales, experts.down_bias)
    tensors = (h, *shared, *stored, parts)
    arguments = [*kernel_arguments(tensors, rows), ctypes.c_int(tiles)]
    down.launch(tiles * -(-experts.hidden // 256), THREADS, arguments, pdl)
