"""One layer of the fused Gemma 4 decoder: its weights, and the rotary table of its kind."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eightfold.kernels.attention.one_copy_keys import OneCopy, fold_key_weight

from ..inspection.kv_geometry import LayerSpec
from .fused_projections import fuse_weights, fused_projections


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Rotations of one kind of layer; cos and sin are float32 [positions, pairs]."""

    cos: torch.Tensor
    sin: torch.Tensor


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """Weights of one layer, [out, in] each, and its norms.

    Attributes:
        qkv: [(heads + 2 * kv_heads) * head_dim, hidden]; without the value heads if keys and
            values have one projection.
        out: [hidden, heads * head_dim].
        gate_up: [2 * inner, hidden], gate rows first.
        down: [hidden, inner].
        q_norm: [head_dim]; with one copy folded with ``k_norm`` (see ``fold_key_weight``).
        scalar: factor of the residual at the end of the layer.
    """

    spec: LayerSpec
    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    input_norm: torch.Tensor
    post_attention_norm: torch.Tensor
    pre_feedforward_norm: torch.Tensor
    post_feedforward_norm: torch.Tensor
    scalar: float
    rotary: RotaryTable

    @property
    def one_copy(self) -> OneCopy | None:
        """Data from which attention rebuilds keys; ``None`` if the cache holds keys and values."""
        if not self.spec.one_copy:
            return None
        return OneCopy(self.k_norm, self.rotary.cos, self.rotary.sin)


def make_rotary_table(rotary: nn.Module, kind: str, positions: int) -> RotaryTable:
    """Compute the table of one kind of layer from the model's rotary embedding.

    Only pairs that rotate are included: a proportional embedding leaves the later ones alone.
    """
    frequencies = getattr(rotary, f"{kind}_inv_freq").float()
    pairs = int((frequencies != 0).sum())
    scaling = float(getattr(rotary, f"{kind}_attention_scaling"))
    at = torch.arange(positions, device=frequencies.device, dtype=torch.float32)
    angles = at[:, None] * frequencies[None, :pairs]
    return RotaryTable(angles.cos() * scaling, angles.sin() * scaling)


def make_fused_layer(module: nn.Module, spec: LayerSpec, rotary: RotaryTable) -> FusedLayer:
    """Collect the weights of a transformers layer; its projections become views of fused ones."""
    layer: Any = module
    qkv, gate_up = (fuse_weights(projections) for projections in fused_projections(layer))
    attention = layer.self_attn
    q_norm = attention.q_norm.weight.data
    if spec.one_copy:
        q_norm = fold_key_weight(q_norm, attention.k_norm.weight.data, rotary.cos.shape[1])
    return FusedLayer(
        spec=spec,
        qkv=qkv,
        out=attention.o_proj.weight.data,
        gate_up=gate_up,
        down=layer.mlp.down_proj.weight.data,
        q_norm=q_norm,
        k_norm=attention.k_norm.weight.data,
        input_norm=layer.input_layernorm.weight.data,
        post_attention_norm=layer.post_attention_layernorm.weight.data,
        pre_feedforward_norm=layer.pre_feedforward_layernorm.weight.data,
        post_feedforward_norm=layer.post_feedforward_layernorm.weight.data,
        scalar=float(layer.layer_scalar),
        rotary=rotary,
    )
