"""The weights of one layer of the fused decoder, collected from transformers' module by its row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eightfold.kernels.attention.one_copy_keys import OneCopy, fold_key_weight
from eightfold.kernels.quantized.stored_matrix import Weight

from ...inspection.families import Family
from ...inspection.kv_geometry import LayerSpec
from ...model_errors import UnsupportedModelError
from .expert_block import ExpertBlock, make_expert_block
from .projections import join_biases, join_weights, joined_projections
from .rotary_tables import RotaryTable
from .tensor_reader import TensorReader


@dataclass(frozen=True, slots=True)
class PerLayerInput:
    """Weights that add a layer's own input of the token (Gemma 4 E2B and E4B).

    Attributes:
        gate: [width of the input, hidden].
        projection: [hidden, width of the input].
        norm: [hidden], of the projection.
    """

    gate: torch.Tensor
    projection: torch.Tensor
    norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """Weights of one layer, [out, in] each, and its norms; ``None`` for what it does not have.

    Attributes:
        qkv: [(heads + 2 * kv_heads) * head_dim, hidden]; without the value heads if keys and
            values have one projection, and with the queries alone if the layer shares both.
        out: [hidden, heads * head_dim].
        q_norm: [head_dim], or [heads * head_dim] for a norm of all heads together; with one copy
            folded with ``k_norm`` (see ``fold_key_weight``).
        sinks: [heads], logits that take weight but add no value.
        scale: factor of attention's scores.
        gate_up: [2 * inner, hidden], gate rows first.
        down: [hidden, inner].
        experts: experts in place of the dense block, or beside it.
        scalar: factor of the residual at the end of the layer.
    """

    spec: LayerSpec
    qkv: Weight
    qkv_bias: torch.Tensor | None
    out: Weight
    out_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    sinks: torch.Tensor | None
    scale: float
    rotary: RotaryTable
    input_norm: torch.Tensor | None
    post_attention_norm: torch.Tensor | None
    pre_feedforward_norm: torch.Tensor | None
    post_feedforward_norm: torch.Tensor | None
    gate_up: Weight | None
    down: Weight | None
    experts: ExpertBlock | None
    per_layer_input: PerLayerInput | None
    scalar: float

    @property
    def one_copy(self) -> OneCopy | None:
        """Data from which attention rebuilds keys; ``None`` if the cache holds keys and values."""
        if not self.spec.one_copy:
            return None
        assert self.k_norm is not None
        return OneCopy(self.k_norm, self.rotary.cos, self.rotary.sin)


def make_fused_layer(
    module: nn.Module,
    spec: LayerSpec,
    rotary: RotaryTable,
    family: Family,
    options: Mapping[str, Any],
    *,
    for_warmup: bool = False,
) -> FusedLayer:
    """Collect the weights of a transformers layer; its projections become views of joined ones.

    Args:
        options: values of the model's configuration.
        for_warmup: True if the weights are not there yet.

    Raises:
        UnsupportedModelError: if the layer has a tensor that its row does not describe (see
            ``uncovered_tensor``, which finds it out before weights are read).
    """
    layer: Any = module
    reader = TensorReader(module)
    attention, joined = layer.self_attn, list(joined_projections(module, family))
    q_norm, k_norm = (
        reader.norm(f"self_attn.{name}", family.norm_offset) for name in ("q_norm", "k_norm")
    )
    if spec.one_copy:
        assert q_norm is not None
        assert k_norm is not None
        q_norm = fold_key_weight(q_norm, k_norm, rotary.cos.shape[1])
    reader.read_modules("self_attn", family.qkv)
    reader.read_modules("mlp", family.gate_up)
    scalar = reader.get(family.layer_scalar) if family.layer_scalar else None
    out = reader.weight("self_attn.o_proj")
    assert out is not None
    fused = FusedLayer(
        spec=spec,
        qkv=join_weights(joined[0]),
        qkv_bias=join_biases(joined[0]),
        out=out,
        out_bias=reader.get("self_attn.o_proj.bias"),
        q_norm=q_norm,
        k_norm=k_norm,
        sinks=reader.get("self_attn.sinks"),
        scale=float(attention.scaling),
        rotary=rotary,
        input_norm=reader.norm(family.input_norm, family.norm_offset),
        post_attention_norm=reader.norm(family.post_attention_norm, family.norm_offset),
        pre_feedforward_norm=reader.norm(family.pre_feedforward_norm, family.norm_offset),
        post_feedforward_norm=reader.norm(family.post_feedforward_norm, family.norm_offset),
        gate_up=join_weights(joined[1]) if len(joined) > 1 else None,
        down=reader.weight("mlp.down_proj"),
        experts=make_expert_block(module, reader, family, options, for_warmup=for_warmup),
        per_layer_input=_per_layer_input(reader),
        scalar=1.0 if scalar is None or scalar.is_meta else float(scalar),
    )
    biased = len(joined) > 1 and join_biases(joined[1]) is not None
    if uncovered := [*reader.unread(), *(["a bias of gate and up"] if biased else [])]:
        raise UnsupportedModelError(
            f"the fused decoder does not cover {uncovered[0]} of layer {spec.index}"
        )
    return fused


def _per_layer_input(reader: TensorReader) -> PerLayerInput | None:
    gate = reader.get("per_layer_input_gate.weight")
    if gate is None:
        return None
    return PerLayerInput(
        gate, reader["per_layer_projection.weight"], reader["post_per_layer_input_norm.weight"]
    )
