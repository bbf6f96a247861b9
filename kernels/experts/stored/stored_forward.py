"""Launches the two products of experts whose weights are stored in FP8 or 4 bits."""

import torch

from ...triton_launch import _is_interpreted, pdl_options
from ..expert_config import ExpertTiles
from ..expert_weights import Activation
from ..grouping import PairGroups
from .expert_stack import StoredStack
from .stored_kernel import stored_product_kernel


def stored_product(
    x: torch.Tensor,
    groups: PairGroups,
    stack: StoredStack,
    weights: torch.Tensor,
    out: torch.Tensor,
    activation: Activation | None,
    tiles: ExpertTiles,
    *,
    pdl: bool,
) -> None:
    """Compute one of the two products of all pairs.

    Args:
        x: [rows, K] for gate and up; for down [pairs, K], a row for each sorted pair.
        groups: the pairs, sorted.
        stack: gate and up rows of each expert, [2 * N, K], gate first; or down rows, [N, K].
        weights: float32 [rows, top_k], of the pairs.
        out: for gate and up [pairs, N] of x's type; for down float32 [top_k, rows, N].
        activation: of gate and up; ``None`` for down.
        tiles: launch configuration; a step never goes beyond a group that shares a scale.
        pdl: launch with programmatic dependent launch.
    """
    gated, (rows, top_k) = activation is not None, weights.shape
    n = stack.codes.shape[1] // (2 if gated else 1)
    most = groups.tiles.shape[1]
    tile_k = tiles.tile_k
    if stack.groups > 1:
        tile_k = min(tile_k, stack.columns_per_scale)
    zeros = stack.codes if stack.zeros is None else stack.zeros
    stored_product_kernel[(most * -(-n // tiles.tile_n),)](
        x, groups.order, groups.tiles, stack.codes, stack.scales, zeros, weights, out, most, rows,
        K=stack.columns, N=n, TOP_K=top_k, GROUP=stack.columns_per_scale, GROUPS=stack.groups,
        SHARED_ROWS=stack.rows_per_scale, FP8=stack.is_fp8, ZEROS=stack.zeros is not None,
        GATED=gated, ACTIVATION=activation or "", BM=groups.tile_rows, BN=tiles.tile_n,
        BK=tile_k if stack.is_fp8 else tile_k // 2, STAGES=tiles.stages,
        ASM=x.dtype == torch.bfloat16 and not _is_interpreted(), num_warps=tiles.warps,
        **pdl_options(pdl),
    )  # fmt: skip
