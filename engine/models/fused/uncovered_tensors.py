"""Finds tensors of a model that its row does not describe, before any weight is read."""

import copy

import torch

from ...inspection.architecture import Architecture
from ...inspection.families import FAMILIES
from ...inspection.meta_model import named_tensors
from ...model_errors import UnsupportedModelError
from .layer_weights import make_fused_layer
from .projections import decoder_layers
from .rotary_tables import RotaryTable

OUTSIDE_LAYERS = (
    "embed_tokens.weight", "norm.weight", "embed_tokens_per_layer.weight",
    "per_layer_model_projection.weight", "per_layer_projection_norm.weight",
)  # fmt: skip


def uncovered_tensor(architecture: Architecture) -> str | None:
    """Return in words which tensor the fused decoder would leave out; ``None`` if it reads all.

    A newer transformers, or an option that the row's author did not know, may have added one.

    Args:
        architecture: of a family that has a row.
    """
    config = copy.deepcopy(architecture.config)
    with torch.device("meta"):
        model = architecture.model_class(config).eval()
        rotary = RotaryTable(torch.empty(1, 1), torch.empty(1, 1), "halves")
    prefix = f"{model.base_model_prefix}."
    known = {"lm_head.weight", *(prefix + name for name in OUTSIDE_LAYERS)}
    for name in named_tensors(model):
        if name not in known and not name.startswith(f"{prefix}layers."):
            return f"the fused decoder does not cover {name}"
    family, options = FAMILIES[config.model_type], config.to_dict()
    try:
        for layer, spec in zip(decoder_layers(model), architecture.layers, strict=True):
            make_fused_layer(layer, spec, rotary, family, options)
    except UnsupportedModelError as error:
        return str(error).rstrip(".")
    return None
