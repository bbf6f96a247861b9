"""The families of models that the fused decoder runs, a row of data each.

Nothing here imports torch or transformers: a machine is sized by the same table from a config.json
alone. Norms, biases, sinks, windows, shared layers and rotary frequencies are read from the model's
modules, so that a row names only what modules do not say. CONTRIBUTING.md says how to add one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip
"""Activations of transformers' configurations, and the kernels' names of them."""

RouterKind = Literal["softmax_topk", "softmax_topk_renormalized", "topk_softmax"]


@dataclass(frozen=True, slots=True)
class ExpertsRow:
    """The experts of a layer: the names of their modules, and how rows are routed to them.

    Attributes:
        router: module with the router's ``weight`` and perhaps ``bias``.
        experts: module with the stacked weights of all experts.
        kind: how the router's logits become weights (see ``kernels.experts.router``).
        top_k: option with the number of experts of a row.
        renormalized_by: option that decides, if false, for "softmax_topk" instead of ``kind``.
        activation: the experts' own; empty if it is the family's.
        transposed: True if linear layers in bfloat16 are stored [experts, in, out], with gate and
            up columns in turns.
        enabled_by: option that must be set if the layers are to have experts; empty if there is no
            such option.
        beside_dense: True if the experts are a second branch beside the dense layers, with norms
            of its own (Gemma 4).
    """

    router: str
    experts: str
    kind: RouterKind
    top_k: str
    renormalized_by: str = ""
    activation: str = ""
    transposed: bool = False
    enabled_by: str = ""
    beside_dense: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """The properties that all layers of one ``model_type`` share.

    Norms are named as modules of a layer; an empty name says that there is none.

    Attributes:
        input_norm: before attention.
        post_attention_norm: of attention's output, before it is added to the residual.
        pre_feedforward_norm: before the feed-forward block.
        post_feedforward_norm: of its output, before it is added.
        norm_offset: what is added to the stored weight of every norm.
        value_norm: True if values are normalized, without a weight.
        qkv: projections of attention, joined in this order.
        gate_up: projections of the dense feed-forward block, joined in this order.
        neighbors_rotate: True if the rotary embedding turns elements 2i and 2i + 1 together.
        activation: option that names the activation.
        default_activation: its value if config.json does not give it.
        layer_scalar: name of a layer's factor of the residual; empty if there is none.
        experts: the experts of a layer, if it has some.
        unsupported: options that the decoder does not cover, with the values that ask for nothing.
    """

    input_norm: str = "input_layernorm"
    post_attention_norm: str = ""
    pre_feedforward_norm: str = "post_attention_layernorm"
    post_feedforward_norm: str = ""
    norm_offset: float = 0.0
    value_norm: bool = False
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    neighbors_rotate: bool = False
    activation: str = "hidden_act"
    default_activation: str = "silu"
    layer_scalar: str = ""
    experts: ExpertsRow | None = None
    unsupported: tuple[tuple[str, tuple[Any, ...]], ...] = ()


_SANDWICH: dict[str, Any] = {
    "post_attention_norm": "post_attention_layernorm",
    "pre_feedforward_norm": "pre_feedforward_layernorm",
    "post_feedforward_norm": "post_feedforward_layernorm",
}
_GEMMA: dict[str, Any] = {
    **_SANDWICH,
    "activation": "hidden_activation",
    "default_activation": "gelu_pytorch_tanh",
}
_MIXTURE: dict[str, Any] = {
    "router": "mlp.gate",
    "experts": "mlp.experts",
    "top_k": "num_experts_per_tok",
}
_POST_NORM = Family(
    input_norm="",
    post_attention_norm="post_attention_layernorm",
    pre_feedforward_norm="",
    post_feedforward_norm="post_feedforward_layernorm",
)
_JOINED: dict[str, Any] = {"qkv": ("qkv_proj",), "gate_up": ("gate_up_proj",)}
_NO_BIAS = (("mlp_bias", (None, False)),)

FAMILIES: dict[str, Family] = {
    "llama": Family(unsupported=_NO_BIAS),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "seed_oss": Family(),
    "ernie4_5": Family(neighbors_rotate=True, unsupported=(("use_bias", (None, False)),)),
    "qwen3_moe": Family(
        experts=ExpertsRow(
            kind="softmax_topk_renormalized", renormalized_by="norm_topk_prob", **_MIXTURE
        )
    ),
    "mixtral": Family(experts=ExpertsRow(kind="softmax_topk_renormalized", **_MIXTURE)),
    "phi3": Family(**_JOINED),
    "olmo2": _POST_NORM,
    "olmo3": _POST_NORM,
    "glm4": Family(
        post_attention_norm="post_self_attn_layernorm",
        post_feedforward_norm="post_mlp_layernorm",
        gate_up=("gate_up_proj",),
        neighbors_rotate=True,
    ),
    "gemma3_text": Family(
        **_GEMMA, norm_offset=1.0, unsupported=(("attn_logit_softcapping", (None,)),)
    ),
    "gemma4_text": Family(
        **_GEMMA,
        value_norm=True,
        layer_scalar="layer_scalar",
        experts=ExpertsRow(
            router="router",
            experts="experts",
            kind="softmax_topk_renormalized",
            top_k="top_k_experts",
            enabled_by="enable_moe_block",
            beside_dense=True,
        ),
    ),
    "gpt_oss": Family(
        experts=ExpertsRow(
            router="mlp.router",
            experts="mlp.experts",
            kind="topk_softmax",
            top_k="num_experts_per_tok",
            activation="clamped_swiglu",
            transposed=True,
        ),
        unsupported=(("swiglu_alpha", (None, 1.702)), ("swiglu_limit", (None, 7.0))),
    ),
}
"""Rows by ``model_type``."""


def activation_of(family: Family, config: Mapping[str, Any]) -> str | None:
    """Return the kernels' name of a model's activation; ``None`` if they do not have it."""
    return ACTIVATIONS.get(config.get(family.activation) or family.default_activation)


def unfused_reason(config: Mapping[str, Any]) -> str | None:
    """Return in words why the fused decoder cannot run a model; ``None`` if it can.

    Args:
        config: values of the text model's configuration.
    """
    model_type = str(config.get("model_type") or "this model")
    family = FAMILIES.get(model_type)
    if family is None:
        return f"the fused decoder has no row for {model_type}"
    if activation_of(family, config) is None:
        return f"the kernels have no activation {config[family.activation]!r}"
    for option, allowed in family.unsupported:
        if config.get(option) not in allowed:
            return f"the fused decoder does not cover {option} = {config[option]!r}"
    return None
