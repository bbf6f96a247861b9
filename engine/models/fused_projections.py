"""Fused projections: the weights of q, k and v, and of gate and up, as one tensor each."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..inspection.meta_model import allocate_parameters


def fused_projections(layer: nn.Module) -> Iterator[list[nn.Linear]]:
    """Yield the projections of a layer that are computed as one product: q/k/v, then gate/up."""
    attention: Any = layer.self_attn
    values = [] if attention.v_proj is None else [attention.v_proj]
    yield [attention.q_proj, attention.k_proj, *values]
    mlp: Any = layer.mlp
    yield [mlp.gate_proj, mlp.up_proj]


def allocate_fused(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Allocate a model's parameters so that fused projections are contiguous (see ``Allocate``)."""
    text: Any = model.model
    for layer in text.layers:
        for projections in fused_projections(layer):
            sizes = [projection.out_features for projection in projections]
            fused = torch.empty(sum(sizes), projections[0].in_features, dtype=dtype, device=device)
            for projection, part in zip(projections, fused.split(sizes), strict=True):
                projection.weight = nn.Parameter(part, requires_grad=False)
    allocate_parameters(model, device, dtype)


def fuse_weights(projections: list[nn.Linear]) -> torch.Tensor:
    """Return one tensor [sum of out, in] of which the projections' weights are views.

    Weights that are contiguous already (see :func:`allocate_fused`) are not copied.
    """
    weights = [projection.weight for projection in projections]
    base, rows = weights[0].data, sum(weight.shape[0] for weight in weights)
    address = base.data_ptr()
    for weight in weights:
        if weight.data_ptr() != address or weight.untyped_storage().data_ptr() != (
            base.untyped_storage().data_ptr()
        ):
            break
        address += weight.nbytes
    else:
        return base.as_strided((rows, base.shape[1]), (base.shape[1], 1))
    fused = torch.cat([weight.data for weight in weights])
    begin = 0
    for projection in projections:
        end = begin + projection.weight.shape[0]
        projection.weight.data = fused[begin:end]
        begin = end
    if fused.is_cuda:
        # Otherwise the next fused tensor would take a part of the freed blocks and pin the rest.
        del weights, base
        torch.cuda.empty_cache()
    return fused
