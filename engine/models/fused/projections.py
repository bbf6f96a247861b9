"""Joined projections: the weights of q, k and v, and of gate and up, as one tensor each."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.quantized.stored_matrix import StoredMatrix, Weight, join_matrices

from ...inspection.families import FAMILIES, Family
from ...inspection.meta_model import allocate_parameters
from ...model_errors import UnsupportedModelError
from ...quantization.stored_linear import StoredLinear


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a causal language model."""
    layers = getattr(model, model.base_model_prefix).layers
    assert isinstance(layers, nn.ModuleList)
    return layers


def joined_projections(
    layer: nn.Module, family: Family
) -> Iterator[list[nn.Linear | StoredLinear]]:
    """Yield the projections of a layer that are computed as one product: q/k/v, then gate/up.

    A layer that shares keys and values has no projections for them, one with one copy has none for
    values, and one whose feed-forward block consists of experts has no gate and up.
    """
    attention: Any = layer.self_attn
    # Older transformers keep projections for keys and values that such a layer never computes.
    shares = getattr(attention, "is_kv_shared_layer", False)
    parent: Any
    for parent, names in (
        (attention, family.qkv[:1] if shares else family.qkv),
        (layer.mlp, family.gate_up),
    ):
        found = [getattr(parent, name, None) for name in names]
        if projections := [each for each in found if each is not None]:
            yield projections


def allocate_joined(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Allocate parameters so that joined projections are contiguous (see ``Allocate``)."""
    family = FAMILIES[model.config.model_type]
    for layer in decoder_layers(model):
        for found in joined_projections(layer, family):
            projections = [each for each in found if isinstance(each, nn.Linear)]
            if len(projections) < len(found):
                continue
            sizes = [projection.out_features for projection in projections]
            joined = torch.empty(sum(sizes), projections[0].in_features, dtype=dtype, device=device)
            for projection, part in zip(projections, joined.split(sizes), strict=True):
                projection.weight = nn.Parameter(part, requires_grad=False)
    allocate_parameters(model, device, dtype)


def join_weights(projections: list[nn.Linear | StoredLinear]) -> Weight:
    """Return one tensor [sum of out, in] of which the projections' weights are views.

    Weights that are contiguous already (see :func:`allocate_joined`) are not copied. Those
    that are stored quantized become one matrix, and the projections lose theirs.

    Raises:
        UnsupportedModelError: if projections are stored in different ways.
    """
    stored = [each for each in projections if isinstance(each, StoredLinear)]
    if stored:
        return _join_stored(stored, len(projections))
    plain = [each for each in projections if isinstance(each, nn.Linear)]
    weights = [projection.weight for projection in plain]
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
    joined = torch.cat([weight.data for weight in weights])
    begin = 0
    for projection in plain:
        end = begin + projection.weight.shape[0]
        projection.weight.data = joined[begin:end]
        begin = end
    if joined.is_cuda:
        # Otherwise the next joined tensor would take a part of the freed blocks and pin the rest.
        del weights, base
        torch.cuda.empty_cache()
    return joined


def _join_stored(projections: list[StoredLinear], count: int) -> StoredMatrix:
    try:
        if len(projections) < count:
            raise ValueError("Some of the projections are not quantized.")
        joined = join_matrices([projection.matrix for projection in projections])
    except ValueError as error:
        raise UnsupportedModelError(
            "The fused decoder needs projections that it joins to be stored in the same way; set "
            "fused to False."
        ) from error
    if count > 1:
        for projection in projections:
            del projection.matrix
        if joined.codes.is_cuda:
            torch.cuda.empty_cache()
    return joined


def join_biases(projections: list[nn.Linear | StoredLinear]) -> torch.Tensor | None:
    """Return the biases of joined projections, [sum of out], copied; ``None`` if there are none."""
    biases: list[torch.Tensor | None] = [projection.bias for projection in projections]
    given = [bias for bias in biases if bias is not None]
    if not given:
        return None
    return torch.cat(
        [
            given[0].new_zeros(projection.out_features) if bias is None else bias.data
            for projection, bias in zip(projections, biases, strict=True)
        ]
    )
