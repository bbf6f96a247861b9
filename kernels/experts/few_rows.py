"""A layer's experts for few rows, by the CUDA kernel ``few_rows.cu``, bound by reading weights."""

from dataclasses import dataclass
from typing import get_args

import torch

from ..cuda.cuda_driver import CudaKernel
from ..cuda.nvrtc import load_kernel
from .expert_weights import Activation, ExpertWeights
from .grouping import most_tiles
from .pair_launch import FALLBACK, PairLaunch, kernel_arguments

SOURCE = "../experts/cuda/few_rows.cu"
MIN_CAPABILITY, DEPENDENT_LAUNCH = (8, 0), (9, 0)
MOST_PAIRS = 2048  # of a call: the kernel finds its expert's among them


@dataclass(frozen=True, slots=True)
class FewRowsTiles:
    """Configuration of one of the two products.

    Attributes:
        warps: warps of a program, among which a row's columns are divided.
        weight_tiles: groups of 16 weight rows in a program.
        unroll: chunks of 64 bytes of each row that a warp loads in a step.
        blocks: resident programs of a multiprocessor for which registers are allocated.
    """

    warps: int
    weight_tiles: int
    unroll: int
    blocks: int


@dataclass(frozen=True, slots=True)
class FewRowsConfig:
    """Configuration of both products.

    Attributes:
        tile_rows: most pairs of a program, a multiple of 8.
        gate_up: tiles of the first product.
        down: tiles of the second product.
    """

    tile_rows: int
    gate_up: FewRowsTiles
    down: FewRowsTiles


def few_rows_config(experts: ExpertWeights) -> FewRowsConfig:
    """Return the configuration for a layer's experts."""
    if experts.is_mxfp4:
        tiles = FewRowsTiles(4, 2, 1, 5)
        return FewRowsConfig(8, tiles, tiles)
    return FewRowsConfig(8, FewRowsTiles(4, 2, 2, 4), FewRowsTiles(2, 2, 1, 10))


def kernel_defines(
    experts: ExpertWeights, top_k: int, tile_rows: int, tiles: FewRowsTiles, gated: bool
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros."""
    bias = experts.gate_up_bias if gated else experts.down_bias
    columns = (experts.hidden, experts.inner)
    return (
        ("MXFP4", int(experts.is_mxfp4)),
        ("GATED", int(gated)),
        ("INTERLEAVED", int(experts.interleaved)),
        ("HAS_BIAS", int(bias is not None)),
        ("ACTIVATION", get_args(Activation).index(experts.activation)),
        ("INPUTS", columns[0 if gated else 1]),
        ("OUTPUTS", columns[1 if gated else 0]),
        ("EXPERTS", experts.experts),
        ("TOP_K", top_k),
        ("WARPS", tiles.warps),
        ("TILES_M", tiles.weight_tiles),
        ("TILES_N", tile_rows // 8),
        ("UNROLL", tiles.unroll),
        ("BLOCKS", tiles.blocks),
    )


def _load_kernel(
    device: torch.device, defines: tuple[tuple[str, object], ...]
) -> CudaKernel | None:
    capability = torch.cuda.get_device_capability(device)
    macros = (*defines, ("PDL", int(capability >= DEPENDENT_LAUNCH)))
    architecture = "sm_{}{}".format(*capability)
    return load_kernel(device, "experts_few_rows", macros, 0, FALLBACK, SOURCE, architecture)


def few_rows_fits(
    rows: int, top_k: int, experts: ExpertWeights, config: FewRowsConfig | None = None
) -> bool:
    """Return whether ``few_rows_forward`` supports these experts and this many rows.

    Compiles the kernels.
    """
    config = config or few_rows_config(experts)
    gate_up, device = experts.gate_up_rows, experts.gate_up_rows.device
    multiple = 32 if experts.is_mxfp4 else 8
    biases = (experts.gate_up_bias, experts.down_bias)
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
        and gate_up.dtype in (torch.bfloat16, torch.uint8)
        and rows * top_k <= MOST_PAIRS
        and experts.inner % (8 * config.gate_up.weight_tiles) == 0
        and experts.hidden % (16 * config.down.weight_tiles) == 0
        and experts.hidden % multiple == 0
        and experts.inner % multiple == 0
        and (experts.interleaved or not experts.is_mxfp4)
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
        and all(each.data_ptr() % 16 == 0 for each in (gate_up, experts.down_rows))
        and all(kernel is not None for kernel in _kernels(top_k, experts, config))
    )


def _kernels(
    top_k: int, experts: ExpertWeights, config: FewRowsConfig
) -> tuple[CudaKernel | None, CudaKernel | None]:
    device = experts.gate_up_rows.device
    gate_up = kernel_defines(experts, top_k, config.tile_rows, config.gate_up, True)
    down = kernel_defines(experts, top_k, config.tile_rows, config.down, False)
    return _load_kernel(device, gate_up), _load_kernel(device, down)


def few_rows_forward(launch: PairLaunch, experts: ExpertWeights, config: FewRowsConfig) -> None:
    """Compute all pairs' weighted outputs, with experts that ``few_rows_fits`` accepts."""
    rows, top_k = launch.rows, launch.top_k
    gate_up, down = _kernels(top_k, experts, config)
    assert gate_up is not None
    assert down is not None
    tiles = most_tiles(rows * top_k, experts.experts, config.tile_rows)
    pairs = (launch.ids, launch.weights)
    stored = (experts.gate_up_rows, experts.gate_up_scales, experts.gate_up_bias)
    columns = 8 * config.gate_up.weight_tiles
    gate_up.launch(
        tiles * (experts.inner // columns),
        32 * config.gate_up.warps,
        kernel_arguments((launch.x, *pairs, *stored, launch.h), rows),
        launch.pdl,
    )
    stored = (experts.down_rows, experts.down_scales, experts.down_bias)
    columns = 16 * config.down.weight_tiles
    down.launch(
        tiles * (experts.hidden // columns),
        32 * config.down.warps,
        kernel_arguments((launch.h, *pairs, *stored, launch.parts), rows),
        launch.pdl,
    )
