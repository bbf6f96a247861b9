"""The experts in MXFP4 of many rows by the CUDA kernel ``many_rows.cu``."""

import ctypes
import functools
import logging
from dataclasses import dataclass

import torch

from ..cuda.cuda_driver import CudaError, CudaKernel
from ..cuda.nvrtc import compile_cubin, is_hopper
from .expert_weights import ExpertWeights
from .grouping import PairGroups

SOURCE = "../experts/many_rows.cu"
THREADS = 256
MOST_ROWS = 128  # pairs of a tile
SLOT_BYTES = 32768


@dataclass(frozen=True, slots=True)
class ManyRowsConfig:
    """Configuration of both products.

    Attributes:
        slots: chunks of x in the ring, at least 4.
        tile_rows: most pairs of a tile, at most 128.
    """

    slots: int = 5
    tile_rows: int = MOST_ROWS


def kernel_defines(
    experts: ExpertWeights, top_k: int, slots: int, gated: bool
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    bias = experts.gate_up_bias if gated else experts.down_bias
    columns = (experts.hidden, experts.inner)
    return (
        ("GATED", int(gated)),
        ("HAS_BIAS", int(bias is not None)),
        ("INPUTS", columns[0 if gated else 1]),
        ("OUTPUTS", columns[1 if gated else 0]),
        ("TOP_K", top_k),
        ("SLOTS", slots),
    )


@functools.cache
def _load_kernel(
    device: torch.device, defines: tuple[tuple[str, object], ...]
) -> CudaKernel | None:
    shared = int(str(dict(defines)["SLOTS"])) * SLOT_BYTES + 1024
    try:
        with torch.cuda.device(device):
            cubin = compile_cubin(SOURCE, dict(defines))
            return CudaKernel(cubin, "experts_many_rows", shared)
    except CudaError as error:
        message = "The CUDA kernel for experts is not available, so Triton's runs. The reason: %s"
        logging.getLogger(__name__).warning(message, error)
        return None


def _kernels(
    top_k: int, experts: ExpertWeights, config: ManyRowsConfig
) -> tuple[CudaKernel | None, CudaKernel | None]:
    device = experts.gate_up_rows.device
    gate_up = kernel_defines(experts, top_k, config.slots, True)
    down = kernel_defines(experts, top_k, config.slots, False)
    return _load_kernel(device, gate_up), _load_kernel(device, down)


def many_rows_fits(
    top_k: int, experts: ExpertWeights, config: ManyRowsConfig | None = None
) -> bool:
    """Return whether ``many_rows_forward`` supports these experts.

    Compiles the kernels.
    """
    biases = (experts.gate_up_bias, experts.down_bias)
    return (
        is_hopper(experts.gate_up_rows.device)
        and experts.is_mxfp4
        and experts.interleaved
        and experts.activation == "clamped_swiglu"
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
        and all(each is not None for each in _kernels(top_k, experts, config or ManyRowsConfig()))
    )


def many_rows_forward(
    x: torch.Tensor,
    groups: PairGroups,
    weights: torch.Tensor,
    experts: ExpertWeights,
    h: torch.Tensor,
    parts: torch.Tensor,
    config: ManyRowsConfig,
    *,
    pdl: bool,
) -> None:
    """Compute the weighted outputs of all pairs.

    Args:
        x: bfloat16 [rows, hidden padded to 128], columns permuted in chunks of 128.
        groups: the pairs, sorted.
        weights: float32 [rows, top_k].
        experts: ``many_rows_fits`` accepts them.
        h: bfloat16 memory of pairs times inner, padded to 128.
        parts: float32 [top_k, rows, hidden], written.
        config: configuration.
        pdl: launch with programmatic dependent launch.
    """
    rows, top_k = weights.shape
    gate_up, down = _kernels(top_k, experts, config)
    assert gate_up is not None
    assert down is not None
    tiles = groups.tiles.shape[1]
    shared = (groups.order, groups.tiles, weights)
    sizes = (ctypes.c_int(rows), ctypes.c_int(tiles))
    stored = (experts.gate_up_rows, experts.gate_up_scales, experts.gate_up_bias)
    arguments = [*_pointers((x, *shared, *stored, h)), *sizes]
    gate_up.launch(tiles * -(-experts.inner // 128), THREADS, arguments, pdl)
    stored = (experts.down_rows, experts.down_scales, experts.down_bias)
    arguments = [*_pointers((h, *shared, *stored, parts)), *sizes]
    down.launch(tiles * -(-experts.hidden // 256), THREADS, arguments, pdl)


def _pointers(tensors: tuple[torch.Tensor | None, ...]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(0 if t is None else t.data_ptr()) for t in tensors]
