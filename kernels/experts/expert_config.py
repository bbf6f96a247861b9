"""Choice of the kernel that computes a layer's experts, and of its configuration."""

from dataclasses import dataclass, replace

import torch

from ..argument_checks import require, require_tile
from .bf16_stream import Bf16StreamConfig, bf16_stream_fits
from .expert_weights import ExpertWeights
from .few_rows import FewRowsConfig, few_rows_config, few_rows_fits
from .grouped_kernels import CHUNK
from .many_rows import ManyRowsConfig, many_rows_fits
from .mxfp4_stream import StreamConfig, mxfp4_stream_fits
from .router import Routing
from .stored.expert_stack import StoredStack

MOST_FEW_ROWS = 64
MOST_STREAMED = 12  # pairs of an expert, on average, in MXFP4
MOST_STREAMED_IN_FOURS = 1.5  # the same, for tiles of four pairs
MOST_STREAMED_ROWS = 16  # in bfloat16, FP8 and 4 bits
STACKED_STREAMS = (Bf16StreamConfig(most_stages=8, down_groups=2), Bf16StreamConfig(most_stages=8))
"""Configurations of the stream for FP8 and 4 bits (short rows); the first that fits is used."""
STREAM_STACKED = False
"""True if weights in FP8 and 4 bits use the stream instead of the Triton kernel.

Off, because the stream has not run on a GPU yet.
"""
SMALLEST_TILE = 16
LARGE_TILES = (9, 10)  # compute capabilities, without the minor one


@dataclass(frozen=True, slots=True)
class ExpertTiles:
    """Launch configuration of one of the two products.

    Attributes:
        tile_n: output columns per program; in gate and up, of each.
        tile_k: input columns per step; for MXFP4 a multiple of 128.
        warps: warps per program.
        stages: stages of the software pipeline.
    """

    tile_n: int
    tile_k: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """Launch configuration of ``experts_forward``.

    Attributes:
        tile_rows: pairs of one expert that a program computes.
        gate_up: tiles of the first product.
        down: tiles of the second product.
    """

    tile_rows: int
    gate_up: ExpertTiles
    down: ExpertTiles


Configuration = StreamConfig | Bf16StreamConfig | FewRowsConfig | ManyRowsConfig | ExpertConfig


def expert_config(rows: int, top_k: int, experts: ExpertWeights) -> Configuration:
    """Return the configuration for this many rows, of a CUDA kernel if one can compute them."""
    if experts.is_stacked:
        for stream in STACKED_STREAMS if STREAM_STACKED else ():
            if rows <= MOST_STREAMED_ROWS and bf16_stream_fits(rows, top_k, experts, stream):
                return stream
        return stacked_config(rows, top_k, experts)
    mean = rows * top_k / experts.experts
    if mean <= MOST_STREAMED and mxfp4_stream_fits(rows, top_k, experts):
        return StreamConfig() if mean <= MOST_STREAMED_IN_FOURS else StreamConfig(4, 8)
    if rows <= MOST_STREAMED_ROWS and bf16_stream_fits(rows, top_k, experts):
        return Bf16StreamConfig()
    if rows <= MOST_FEW_ROWS and few_rows_fits(rows, top_k, experts):
        return few_rows_config(experts)
    if rows > MOST_FEW_ROWS and many_rows_fits(top_k, experts):
        return ManyRowsConfig()
    return tile_config(rows, top_k, experts)


def clears_counter(rows: int, top_k: int, experts: ExpertWeights) -> bool:
    """Return whether ``experts_forward`` leaves the third of its counters at 0."""
    return isinstance(expert_config(rows, top_k, experts), StreamConfig | Bf16StreamConfig)


def tile_config(rows: int, top_k: int, experts: ExpertWeights) -> ExpertConfig:
    """Return the configuration of the Triton kernels for this many rows.

    Large tiles need the shared memory and the matrix instruction of data center GPUs from Hopper
    on.
    """
    mean, packed = rows * top_k / experts.experts, experts.is_mxfp4
    tiles = ExpertTiles(64, 128 if packed or mean <= 12 else 64, 4, 3)
    if mean <= 12:
        return ExpertConfig(16, tiles, replace(tiles, stages=4))
    if mean <= 48 or not _takes_large_tiles(experts.gate_up_rows.device):
        return ExpertConfig(64, tiles, tiles)
    tiles = ExpertTiles(128, tiles.tile_k, 8, 3)
    return ExpertConfig(128, tiles, tiles)


def stacked_config(rows: int, top_k: int, experts: ExpertWeights) -> ExpertConfig:
    """Return the configuration of the Triton kernel for weights in FP8 or 4 bits.

    Hopper's was the fastest of seven (few rows) and of four (many) on an H200.
    """
    assert isinstance(experts.gate_up, StoredStack)
    mean, tiles = rows * top_k / experts.experts, ExpertTiles(64, 128, 4, 3)
    large, fp8 = _takes_large_tiles(experts.gate_up_rows.device), experts.gate_up.is_fp8
    small_groups = experts.gate_up.columns_per_scale < 128
    wide = ExpertTiles(128, 128, 8, 3)
    if mean <= 12:
        few = replace(tiles, stages=4)
        if large and not small_groups:
            few = ExpertTiles(32, 128, 2, 4) if fp8 else wide
        return ExpertConfig(16, few, few)
    if large and not fp8:
        return ExpertConfig(64, wide, wide)
    if mean <= 48 or not large:
        return ExpertConfig(64, tiles if large else replace(tiles, tile_n=32), tiles)
    return ExpertConfig(128, replace(tiles, warps=8), wide)


def _takes_large_tiles(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in LARGE_TILES


def check_config(config: Configuration, rows: int, top_k: int, experts: ExpertWeights) -> None:
    """Raise ValueError unless a configuration that the caller chose can be used."""
    fits = True
    if isinstance(config, StreamConfig):
        fits = mxfp4_stream_fits(rows, top_k, experts, config)
    elif isinstance(config, Bf16StreamConfig):
        fits = bf16_stream_fits(rows, top_k, experts, config)
    elif isinstance(config, FewRowsConfig):
        fits = few_rows_fits(rows, top_k, experts, config)
    elif isinstance(config, ManyRowsConfig):
        fits = many_rows_fits(top_k, experts)
    fits &= isinstance(config, ExpertConfig | Bf16StreamConfig) or not experts.is_stacked
    require(fits, f"{config} does not fit these experts; use the configuration of tile_config.")
    if not isinstance(config, ExpertConfig):
        return
    require_tile("tile_rows", config.tile_rows)
    for name, tiles in (("gate_up", config.gate_up), ("down", config.down)):
        require_tile(f"tile_n of {name}", tiles.tile_n)
        require_tile(f"tile_k of {name}", tiles.tile_k)
        require(
            not experts.is_mxfp4 or tiles.tile_k % CHUNK == 0,
            f"tile_k of {name} is {tiles.tile_k}; MXFP4 needs a multiple of {CHUNK}.",
        )


def chooses_experts(config: Configuration, routing: Routing) -> bool:
    """Return whether the kernel of a configuration chooses experts by itself."""
    tensors = [routing.logits] + ([] if routing.expert_scale is None else [routing.expert_scale])
    return isinstance(config, StreamConfig | Bf16StreamConfig) and all(
        t.dtype == torch.float32 and t.is_contiguous() for t in tensors
    )
