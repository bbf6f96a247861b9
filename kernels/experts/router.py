"""Routing: each row's experts and their weights, from the router's logits."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import triton
import triton.language as tl

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..triton_launch import next_power_of_2, pdl_launch_dependents, pdl_options, pdl_wait

RouterKind = Literal["softmax_topk", "softmax_topk_renormalized", "topk_softmax"]
"""Order of softmax and choice: probabilities among all experts, the same divided by their sum
(Qwen3-MoE, Gemma 4), or the softmax of the chosen logits (gpt-oss). The last two are equal."""


@dataclass(frozen=True, slots=True)
class Routing:
    """What experts and their weights are chosen from; see ``route``.

    Attributes:
        logits: float32 [rows, experts].
        kind: how logits become weights.
        expert_scale: float32 [experts], factors of the weights.
    """

    logits: torch.Tensor
    kind: RouterKind
    expert_scale: torch.Tensor | None = None


ROUTED = {None: 0, "topk_softmax": 1, "softmax_topk_renormalized": 1, "softmax_topk": 2}
"""The macro ROUTED of kernels that choose experts by themselves, by kind."""


@triton.jit
def route_kernel(
    logits, expert_scale, ids, weights,
    EXPERTS: tl.constexpr, LANES: tl.constexpr, TOP_K: tl.constexpr, PADDED_K: tl.constexpr,
    OF_ALL: tl.constexpr, HAS_SCALE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    live = lane < EXPERTS
    values = tl.load(logits + row * EXPERTS + lane, mask=live, other=float("-inf")).to(tl.float32)
    # A NaN is chosen last, so that ids stay valid; it still makes the row's weights NaN.
    ordered = tl.where(values != values, float("-inf"), values)
    bits = ordered.to(tl.int32, bitcast=True)
    key = tl.where(live, bits ^ ((bits >> 31) & 0x7FFFFFFF), -0x80000000)
    largest = tl.max(ordered, 0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    slot = tl.arange(0, PADDED_K)
    chosen = tl.zeros([PADDED_K], tl.int32)
    powers = tl.zeros([PADDED_K], tl.float32)
    exponentials = tl.exp(values - largest)
    for k in tl.static_range(TOP_K):
        best = tl.max(key, 0)
        expert = tl.min(tl.where(key == best, lane, LANES), 0)
        power = tl.sum(tl.where(lane == expert, exponentials, 0.0), 0)
        chosen = tl.where(slot == k, expert, chosen)
        powers = tl.where(slot == k, power, powers)
        key = tl.where(lane == expert, -0x80000000, key)
    if OF_ALL:
        total = tl.sum(tl.where(live, exponentials, 0.0), 0)
    else:
        total = tl.sum(powers, 0)
        has_nan = tl.max(((values != values) & live).to(tl.int32), 0)
        total = tl.where(has_nan > 0, float("nan"), total)
    result = powers / total
    kept = slot < TOP_K
    if HAS_SCALE:
        result *= tl.load(expert_scale + chosen, mask=kept, other=0.0).to(tl.float32)
    tl.store(ids + row * TOP_K + slot, chosen, mask=kept)
    tl.store(weights + row * TOP_K + slot, result, mask=kept)


def route(
    logits: torch.Tensor,
    top_k: int,
    kind: RouterKind,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    expert_scale: torch.Tensor | None = None,
    pdl: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose each row's experts, the largest logit first, the lower number among equals.

    Args:
        logits: [rows, experts]. A NaN is chosen last and makes its row's weights NaN.
        top_k: experts for each row.
        kind: how logits become weights.
        ids: int32 [rows, top_k], written.
        weights: float32 [rows, top_k], written.
        expert_scale: [experts], factors of the weights (Gemma 4).
        pdl: launch with programmatic dependent launch.

    Returns:
        ``ids`` and ``weights``.

    Raises:
        ValueError: a shape, a dtype or the kind does not fit.
    """
    _check(logits, top_k, kind, ids, weights, expert_scale)
    rows, experts = logits.shape
    route_kernel[(rows,)](
        logits, logits if expert_scale is None else expert_scale, ids, weights,
        EXPERTS=experts, LANES=next_power_of_2(experts), TOP_K=top_k,
        PADDED_K=next_power_of_2(top_k), OF_ALL=kind == "softmax_topk",
        HAS_SCALE=expert_scale is not None, num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return ids, weights


def _check(
    logits: torch.Tensor,
    top_k: int,
    kind: RouterKind,
    ids: torch.Tensor,
    weights: torch.Tensor,
    expert_scale: torch.Tensor | None,
) -> None:
    """Raise ValueError unless the arguments of a call fit together."""
    require_tensor("logits", logits, FLOAT_DTYPES, 2)
    require_tensor("ids", ids, torch.int32, 2)
    require_tensor("weights", weights, torch.float32, 2)
    rows, experts = logits.shape
    require(rows >= 1, "logits has no rows.")
    require(1 <= top_k <= experts, f"top_k is {top_k}; it must be between 1 and {experts}.")
    require(
        kind in get_args(RouterKind),
        f"The kind {kind!r} is not supported; use one of {', '.join(get_args(RouterKind))}.",
    )
    for name, tensor in (("ids", ids), ("weights", weights)):
        require(
            tuple(tensor.shape) == (rows, top_k),
            f"{name} has shape {tuple(tensor.shape)}; it must be {(rows, top_k)}.",
        )
    if expert_scale is not None:
        require_tensor("expert_scale", expert_scale, FLOAT_DTYPES, 1)
        require(len(expert_scale) == experts, f"expert_scale must have {experts} elements.")


def route_reference(
    logits: torch.Tensor,
    top_k: int,
    kind: RouterKind,
    expert_scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what ``route`` computes, in float64, for logits without NaN."""
    chosen = torch.sort(logits.double(), dim=1, descending=True, stable=True)
    ids = chosen.indices[:, :top_k]
    if kind == "topk_softmax":
        weights = chosen.values[:, :top_k].softmax(1)
    else:
        weights = chosen.values.softmax(1)[:, :top_k]
        if kind == "softmax_topk_renormalized":
            weights = weights / weights.sum(1, keepdim=True)
    if expert_scale is not None:
        weights = weights * expert_scale.double()[ids]
    return ids.int(), weights
