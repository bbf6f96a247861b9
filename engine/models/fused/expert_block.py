"""A layer's experts and its router, collected from transformers' modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eightfold.kernels.experts.expert_weights import ExpertWeights

from ...inspection.families import ExpertsRow, Family, RouterKind, activation_of
from ...model_errors import UnsupportedModelError
from .tensor_reader import TensorReader

DOWN_NAMES = ("down_proj", "down_proj_blocks")  # one of which every layer with experts has
MXFP4_NAMES = ("gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_blocks", "down_proj_scales")


@dataclass(frozen=True, slots=True)
class BranchNorms:
    """Norms of a layer whose experts stand beside its dense block, [hidden] each.

    Attributes:
        post_dense: of the dense block's output.
        router: of the residual, for the router; its scale included.
        pre_experts: of the residual, for the experts.
        post_experts: of the experts' output.
    """

    post_dense: torch.Tensor
    router: torch.Tensor
    pre_experts: torch.Tensor
    post_experts: torch.Tensor


@dataclass(frozen=True, slots=True)
class ExpertBlock:
    """The experts of a layer.

    Attributes:
        router: [experts, hidden].
        router_bias: [experts].
        kind: how logits become weights.
        top_k: experts of each row.
        expert_scale: [experts], factors of the experts' weights in the sum.
        weights: the experts' linear layers.
        branch: norms if they stand beside a dense block.
    """

    router: torch.Tensor
    router_bias: torch.Tensor | None
    kind: RouterKind
    top_k: int
    expert_scale: torch.Tensor | None
    weights: ExpertWeights
    branch: BranchNorms | None


def make_expert_block(
    layer: nn.Module,
    reader: TensorReader,
    family: Family,
    options: Mapping[str, Any],
    *,
    for_warmup: bool,
) -> ExpertBlock | None:
    """Collect the experts of a layer; ``None`` if it has none.

    Args:
        options: values of the model's configuration.
        for_warmup: True if the weights are not there yet. Nothing is transposed then: the
            memory of the transposed weights stays uninitialized.
    """
    row = family.experts
    if row is None:
        return None
    split = reader.split_experts(row.experts)
    if split is None and not any(f"{row.experts}.{name}" in reader for name in DOWN_NAMES):
        return None
    kind = row.kind
    if row.renormalized_by and not options.get(row.renormalized_by):
        kind = "softmax_topk"
    projection = f"{row.router}.proj" if row.beside_dense else row.router
    if f"{projection}.weight" not in reader:
        raise UnsupportedModelError(
            "The fused decoder needs routers that are not quantized; set fused to False."
        )
    activation: Any = row.activation or activation_of(family, options)
    if split is not None:
        weights = split.stacked(activation)
    else:
        weights = _expert_weights(layer, reader, row, activation, for_warmup)
        weights.check()
    return ExpertBlock(
        router=reader[f"{projection}.weight"],
        router_bias=reader.get(f"{projection}.bias"),
        kind=kind,
        top_k=int(options[row.top_k]),
        expert_scale=reader.get(f"{row.router}.per_expert_scale"),
        weights=weights,
        branch=_branch_norms(reader, row) if row.beside_dense else None,
    )


def _branch_norms(reader: TensorReader, row: ExpertsRow) -> BranchNorms:
    scale = reader[f"{row.router}.scale"]
    return BranchNorms(
        post_dense=reader["post_feedforward_layernorm_1.weight"],
        router=scale.float() * scale.shape[0] ** -0.5,
        pre_experts=reader["pre_feedforward_layernorm_2.weight"],
        post_experts=reader["post_feedforward_layernorm_2.weight"],
    )


def _expert_weights(
    layer: nn.Module, reader: TensorReader, row: ExpertsRow, activation: Any, for_warmup: bool
) -> ExpertWeights:
    biases = {
        f"{name}_bias": reader.get(f"{row.experts}.{name}_proj_bias")
        for name in ("gate_up", "down")
    }
    packed = {
        name.replace("_proj", ""): reader.get(f"{row.experts}.{name}") for name in MXFP4_NAMES
    }
    if packed["down_blocks"] is not None:
        return ExpertWeights(activation, True, **packed, **biases)
    experts: Any = layer.get_submodule(row.experts)
    plain = {name: reader[f"{row.experts}.{name}_proj"] for name in ("gate_up", "down")}
    if row.transposed:
        plain = {name: _transposed(experts, f"{name}_proj", for_warmup) for name in plain}
    return ExpertWeights(activation, row.transposed, **plain, **biases)


def _transposed(experts: Any, name: str, for_warmup: bool) -> torch.Tensor:
    """Return weights [experts, in, out] as [experts, out, in].

    The parameter becomes a view of the transposed memory, so that both do not take memory.
    """
    parameter = getattr(experts, name)
    stored = parameter.data
    if stored.transpose(1, 2).is_contiguous():
        return stored.transpose(1, 2)
    if for_warmup:
        return stored.view(stored.shape[0], stored.shape[2], stored.shape[1])
    transposed = stored.transpose(1, 2).contiguous()
    parameter.data = transposed.transpose(1, 2)
    return transposed
