"""A layer's experts: group pairs, gate and up with activation, down with weighting, and the sum."""

import torch
import torch.nn.functional as F

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import (
    _is_interpreted,
    next_power_of_2,
    pdl_options,
    split_workspace,
    workspace_size,
)
from .bf16_stream import Bf16StreamConfig, bf16_stream
from .expert_config import (
    SMALLEST_TILE,
    Configuration,
    ExpertConfig,
    ExpertTiles,
    check_config,
    chooses_experts,
    expert_config,
)
from .expert_weights import SWIGLU_ALPHA, SWIGLU_LIMIT, Activation, ExpertWeights
from .few_rows import FewRowsConfig, few_rows_forward
from .grouped_kernels import (
    CHUNK,
    add_parts_kernel,
    down_kernel,
    gate_up_kernel,
    permute_columns_kernel,
)
from .grouping import PairGroups, group_pairs, grouping_sizes
from .many_rows import ManyRowsConfig, many_rows_forward
from .mxfp4_stream import StreamConfig, mxfp4_stream
from .pair_launch import PairLaunch
from .router import Routing, route
from .stored.expert_stack import StoredStack
from .stored.stored_forward import stored_product

COUNTERS, LEFT_AT_0 = 7, 2  # of the streams' launches, see Counter in expert_stream.cuh


def _row_width(columns: int, experts: ExpertWeights) -> int:
    """Columns of a row in the kernels' memory."""
    return -(-columns // CHUNK) * CHUNK if experts.is_mxfp4 else columns


def _workspace_sizes(
    rows: int,
    top_k: int,
    experts: ExpertWeights,
    config: Configuration,
    dtype: torch.dtype,
) -> list[int]:
    """Float32 elements of counts, order, tiles, permuted x, h, and parts."""
    pairs, per_float = rows * top_k, 4 // dtype.itemsize
    if isinstance(config, StreamConfig | Bf16StreamConfig | FewRowsConfig):
        return [0, 0, 0, 0, -(-pairs * experts.inner // per_float), pairs * experts.hidden]
    permuted = rows * _row_width(experts.hidden, experts) if experts.is_mxfp4 else 0
    h = pairs * _row_width(experts.inner, experts)
    return [
        *grouping_sizes(pairs, experts.experts, config.tile_rows),
        -(-permuted // per_float), -(-h // per_float), pairs * experts.hidden,
    ]  # fmt: skip


def experts_workspace_size(
    rows: int, top_k: int, experts: ExpertWeights, dtype: torch.dtype = torch.bfloat16
) -> int:
    """Return the float32 elements of workspace that ``experts_forward`` needs.

    They suffice for any configuration and for fewer rows too.
    """
    tiles = ExpertTiles(16, 16, 4, 2)
    smallest = ExpertConfig(SMALLEST_TILE, tiles, tiles)  # which needs the longest list of tiles
    return workspace_size(_workspace_sizes(rows, top_k, experts, smallest, dtype))


def experts_forward(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    out: torch.Tensor,
    workspace: torch.Tensor,
    *,
    routing: Routing | None = None,
    counters: torch.Tensor | None = None,
    config: Configuration | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute the weighted sum of each row's experts.

    Nothing waits for the host, so a CUDA graph can capture it. Results repeat bit for bit, and a
    row's result does not depend on the other rows of the call.

    Args:
        x: [rows, hidden].
        ids: int32 [rows, top_k], the experts of each row, all different.
        weights: float32 [rows, top_k].
        experts: the weights; ``check`` accepts them.
        out: [rows, hidden]; or float32 [top_k, rows, hidden], whose sum over the first axis is the
            result, as ``add_rms_norm`` takes it.
        workspace: float32, at least ``experts_workspace_size`` elements.
        routing: if given, ids and weights are computed from it and written.
        counters: int32 [COUNTERS], through which the programs of a launch learn of one another's
            progress. They are zeros before the first call that uses them; concurrent calls need
            counters of their own. The one at LEFT_AT_0 is 0 after a call. ``None`` allocates them.
        config: launch configuration; ``None`` for ``expert_config``.
        pdl: launch with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    (rows, hidden), top_k = x.shape, ids.shape[1]
    if config is None:
        config = expert_config(rows, top_k, experts)
    else:
        check_config(config, rows, top_k, experts)
    if routing is not None and not chooses_experts(config, routing):
        route(
            routing.logits, top_k, routing.kind, ids, weights, expert_scale=routing.expert_scale,
            pdl=pdl,
        )  # fmt: skip
        routing = None
    sizes = _workspace_sizes(rows, top_k, experts, config, x.dtype)
    _check(x, ids, weights, experts, out, workspace, sizes)
    *grouping, permuted, h, parts = split_workspace(workspace, sizes)
    h = h.view(x.dtype)
    rounded = isinstance(config, ManyRowsConfig)
    if rounded:
        parts = parts.view(x.dtype)[: top_k * x.numel()]
    elif out.dim() == 3:
        parts = out
    if isinstance(config, StreamConfig | Bf16StreamConfig):
        if counters is None:
            counters = torch.zeros(COUNTERS, dtype=torch.int32, device=x.device)
        launch = PairLaunch(x, ids, weights, h, parts, pdl, routing, counters)
        if isinstance(config, StreamConfig):
            mxfp4_stream(launch, experts, config)
        else:
            bf16_stream(launch, experts, config)
    elif isinstance(config, FewRowsConfig):
        few_rows_forward(PairLaunch(x, ids, weights, h, parts, pdl), experts, config)
    else:
        _grouped_forward(x, ids, weights, experts, (*grouping, permuted), h, parts, config, pdl)
    if out.dim() == 3 and rounded:
        out.copy_(parts.view(out.shape))
    elif out.dim() == 2:
        block = min(1024, next_power_of_2(hidden))
        add_parts_kernel[(rows * -(-hidden // block),)](
            parts, out, rows, N=hidden, TOP_K=top_k, BLOCK=block, num_warps=4, **pdl_options(pdl)
        )
    return out


def _grouped_forward(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    memory: tuple[torch.Tensor, ...],
    h: torch.Tensor,
    parts: torch.Tensor,
    config: ManyRowsConfig | ExpertConfig,
    pdl: bool,
) -> None:
    """Compute the weighted outputs of all pairs in tiles of grouped pairs."""
    *grouping, permuted = memory
    groups = group_pairs(
        ids, experts.experts, config.tile_rows, [p.view(torch.int32) for p in grouping], pdl=pdl
    )
    if experts.is_mxfp4:
        planes = isinstance(config, ExpertConfig)
        x = _permute_columns(x, permuted.view(x.dtype), planes, pdl)
    if isinstance(config, ManyRowsConfig):
        many_rows_forward(x, groups, weights, experts, h, parts, pdl=pdl)
        return
    if isinstance(experts.gate_up, StoredStack) and isinstance(experts.down, StoredStack):
        stored_product(
            x, groups, experts.gate_up, weights, h, experts.activation, config.gate_up, pdl=pdl
        )
        stored_product(h, groups, experts.down, weights, parts, None, config.down, pdl=pdl)
        return
    _gate_up(x, groups, experts, h, ids.shape[1], config, pdl)
    _down(h, groups, weights, experts, parts, config, pdl)


def _permute_columns(
    x: torch.Tensor, permuted: torch.Tensor, planes: bool, pdl: bool
) -> torch.Tensor:
    rows, hidden = x.shape
    width = permuted.numel() // rows
    permute_columns_kernel[(rows,)](
        x, permuted, rows, K=hidden, PADDED=width, BLOCK=next_power_of_2(width),
        PLANES=planes, num_warps=8 if hidden > 1024 else 4, **pdl_options(pdl),
    )  # fmt: skip
    return permuted.view(rows, width)


def _stored(rows: torch.Tensor) -> torch.Tensor:
    """Return weights as the kernels take them: MXFP4 as 32-bit words."""
    return rows.view(torch.int32) if rows.dtype == torch.uint8 else rows


def _gate_up(
    x: torch.Tensor,
    groups: PairGroups,
    experts: ExpertWeights,
    h: torch.Tensor,
    top_k: int,
    config: ExpertConfig,
    pdl: bool,
) -> None:
    tiles, most = config.gate_up, groups.tiles.shape[1]
    h_row = _row_width(experts.inner, experts)
    w = _stored(experts.gate_up_rows)
    scales, bias = experts.gate_up_scales, experts.gate_up_bias
    gate_up_kernel[(most * -(-h_row // tiles.tile_n),)](
        x, groups.order, groups.tiles, w, w if scales is None else scales,
        w if bias is None else bias, h, most,
        K=experts.hidden, N=experts.inner, ROW=x.shape[1], H_ROW=h_row, TOP_K=top_k,
        MXFP4=experts.is_mxfp4, INTERLEAVED=experts.interleaved, HAS_BIAS=bias is not None,
        ACTIVATION=experts.activation, BM=config.tile_rows, BN=tiles.tile_n, BK=tiles.tile_k,
        STAGES=tiles.stages, ASM=not _is_interpreted(), num_warps=tiles.warps, **pdl_options(pdl),
    )  # fmt: skip


def _down(
    h: torch.Tensor,
    groups: PairGroups,
    weights: torch.Tensor,
    experts: ExpertWeights,
    parts: torch.Tensor,
    config: ExpertConfig,
    pdl: bool,
) -> None:
    tiles, most = config.down, groups.tiles.shape[1]
    rows, top_k = weights.shape
    w, scales, bias = _stored(experts.down_rows), experts.down_scales, experts.down_bias
    down_kernel[(most * -(-experts.hidden // tiles.tile_n),)](
        h, groups.order, groups.tiles, w, w if scales is None else scales,
        w if bias is None else bias, weights, parts, most, rows,
        K=experts.inner, N=experts.hidden, ROW=_row_width(experts.inner, experts), TOP_K=top_k,
        MXFP4=experts.is_mxfp4, HAS_BIAS=bias is not None, BM=config.tile_rows, BN=tiles.tile_n,
        BK=tiles.tile_k, STAGES=tiles.stages, ASM=not _is_interpreted(), num_warps=tiles.warps,
        **pdl_options(pdl),
    )  # fmt: skip


def _check(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    out: torch.Tensor,
    workspace: torch.Tensor,
    sizes: list[int],
) -> None:
    """Raise ValueError unless the tensors and the configuration of a call fit together."""
    require_tensor("x", x, FLOAT_DTYPES, 2)
    require_tensor("ids", ids, torch.int32, 2)
    require_tensor("weights", weights, torch.float32, 2)
    require_tensor("workspace", workspace, torch.float32, 1)
    (rows, hidden), top_k = x.shape, ids.shape[1]
    require(rows >= 1, "x has no rows.")
    require(hidden == experts.hidden, f"x has {hidden} columns; experts take {experts.hidden}.")
    stored = experts.gate_up_rows.dtype
    require(stored in (x.dtype, torch.uint8), f"x is {x.dtype}, but the weights are {stored}.")
    require(
        not experts.is_mxfp4 or x.dtype == torch.bfloat16 or _is_interpreted(),
        f"x is {x.dtype}; experts in MXFP4 need torch.bfloat16 on a GPU.",
    )
    for name, tensor in (("ids", ids), ("weights", weights)):
        require(
            tuple(tensor.shape) == (rows, top_k),
            f"{name} has shape {tuple(tensor.shape)}; it must be {(rows, top_k)}.",
        )
    if out.dim() == 3:
        require_tensor("out in parts", out, torch.float32, 3)
        wanted: tuple[int, ...] = (top_k, rows, hidden)
    else:
        require_tensor("out", out, FLOAT_DTYPES, 2)
        wanted = (rows, hidden)
    require(tuple(out.shape) == wanted, f"out has shape {tuple(out.shape)}; it must be {wanted}.")
    needed = workspace_size(sizes)
    require(
        workspace.numel() >= needed,
        f"The workspace has {workspace.numel()} elements; it needs {needed}.",
    )


def _activation(gate: torch.Tensor, up: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation == "silu":
        return F.silu(gate) * up
    if activation == "gelu_tanh":
        return F.gelu(gate, approximate="tanh") * up
    gate = gate.clamp(max=SWIGLU_LIMIT)
    return (up.clamp(-SWIGLU_LIMIT, SWIGLU_LIMIT) + 1) * gate * (SWIGLU_ALPHA * gate).sigmoid()


def experts_reference(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    experts: ExpertWeights,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Compute what ``experts_forward`` computes, one expert after the other."""
    out = torch.zeros(x.shape, dtype=dtype, device=x.device)
    for expert in ids.unique().tolist():
        row, slot = (ids == expert).nonzero(as_tuple=True)
        gate_up, down = experts.expanded(expert, dtype)
        product = x[row].to(dtype) @ gate_up.T
        if experts.gate_up_bias is not None:
            product += experts.gate_up_bias[expert].to(dtype)
        if experts.interleaved:
            gate, up = product[:, ::2], product[:, 1::2]
        else:
            gate, up = product.chunk(2, dim=1)
        result = _activation(gate, up, experts.activation) @ down.T
        if experts.down_bias is not None:
            result += experts.down_bias[expert].to(dtype)
        out.index_add_(0, row, result * weights[row, slot].to(dtype)[:, None])
    return out
