"""What the engine must know of a model's layers, found without reading a weight."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from .errors import UnsupportedModelError

# These recompute their frequencies from the longest position in the batch, so one sequence's
# rotations would depend on its neighbours.
BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One attention layer.

    Args:
        index: of the layer.
        window: tokens a query sees, itself included; ``None`` for full attention.
        kv_heads, head_dim: of its keys and values.
        source: the layer whose keys and values it reads; its own index unless it shares.
        one_copy: whether the cache holds one vector from which key and value are made.
    """

    index: int
    window: int | None
    kv_heads: int
    head_dim: int
    source: int
    one_copy: bool = False

    @property
    def copies(self) -> int:
        """Vectors kept per token and head."""
        return 1 if self.one_copy else 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """A causal language model whose layers are full or sliding-window attention.

    Args:
        config: of the text model; a multimodal checkpoint's text part.
        model_class: the transformers class that runs it.
        layers: in order.
        max_positions: most positions the model was made for.
        wrapped: whether the checkpoint is a multimodal one around the text model.
    """

    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    layers: tuple[LayerSpec, ...]
    max_positions: int
    wrapped: bool

    @property
    def windows(self) -> tuple[int | None, ...]:
        """One entry per page group: ``None`` for the full-attention layers, then the windows."""
        found = {layer.window for layer in self.layers}
        return tuple(sorted(found, key=lambda window: (window is not None, window or 0)))


def attention_modules(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The attention module of each layer, in order."""
    for layer in getattr(model, model.base_model_prefix).layers:
        yield layer.self_attn


def inspect(config: PretrainedConfig) -> Architecture:
    """Find the layers' kinds and shapes.

    Args:
        config: of a causal language model, or of a multimodal model around one.

    Raises:
        UnsupportedModelError: where a layer is neither full nor sliding-window attention, or the
            model does not let its attention be replaced.
    """
    text = config.get_text_config(decoder=True)
    name = text.model_type
    mapping = AutoModelForCausalLM._model_mapping
    if type(text) not in mapping:
        raise UnsupportedModelError(f"{name} is not a causal language model that transformers has")
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedModelError(
            f"this {name} checkpoint is quantized, which the engine does not run; "
            "use one in bfloat16, float16 or float32"
        )
    rope = set(_rope_types(getattr(text, "rope_parameters", None))) & set(BATCH_DEPENDENT_ROPE)
    if rope:
        raise UnsupportedModelError(
            f"{name} uses {rope.pop()!r} rotary embeddings, which depend on the rest of the batch"
        )
    windows = list(_windows(text))
    # Built before its parameters exist: on the meta device nothing is allocated or read.
    with torch.device("meta"):
        model = mapping[type(text)](text)
    layers = _layers(model, text, windows)
    return Architecture(
        config=text,
        model_class=type(model),
        layers=tuple(layers),
        max_positions=_positions(text.to_dict()),
        wrapped=text is not config,
    )


def _positions(settings: dict[str, Any]) -> int:
    return int(settings["max_position_embeddings"])


def _rope_types(parameters: Any) -> Iterator[str]:
    if isinstance(parameters, dict):
        if isinstance(parameters.get("rope_type"), str):
            yield parameters["rope_type"]
        for value in parameters.values():
            yield from _rope_types(value)


def _windows(text: PretrainedConfig) -> Iterator[int | None]:
    """Each layer's window, by the configuration."""
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None)
    window: Any = getattr(text, "sliding_window", None)
    if kinds is None:
        used = bool(window) and getattr(text, "use_sliding_window", True)
        kinds = ["sliding_attention" if used else "full_attention"] * text.num_hidden_layers
    for index, kind in enumerate(kinds):
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(
                f"{text.model_type} has {kind!r} layers (layer {index} is the first), which cannot "
                "be paged; only full and sliding-window attention can"
            )
        yield int(window) if kind == "sliding_attention" else None


def _layers(
    model: PreTrainedModel, text: PretrainedConfig, windows: list[int | None]
) -> Iterator[LayerSpec]:
    name = text.model_type
    if not getattr(model, "_supports_attention_backend", False):
        raise UnsupportedModelError(f"{name} does not let its attention be replaced")
    try:
        modules = list(attention_modules(model))
    except AttributeError:
        raise UnsupportedModelError(
            f"{name} has layers without a self_attn module, which cannot be paged"
        ) from None
    shared = int(getattr(text, "num_kv_shared_layers", 0) or 0)
    first_shared = len(modules) - shared
    for index, (attention, window) in enumerate(zip(modules, windows, strict=True)):
        head_dim = getattr(attention, "head_dim", None)
        group = getattr(attention, "num_key_value_groups", None)
        query = getattr(attention, "q_proj", None)
        if head_dim is None or group is None or hasattr(attention, "kv_lora_rank"):
            raise UnsupportedModelError(
                f"{name} does not have plain multi-head, multi-query or grouped-query attention"
            )
        if getattr(attention, "is_causal", True) is False:
            raise UnsupportedModelError(f"{name} has attention that is not causal")
        heads = text.num_attention_heads if query is None else query.out_features // head_dim
        source = index
        if shared and index >= first_shared:
            source = max(i for i in range(first_shared) if windows[i] == window)
        yield LayerSpec(index, window, heads // group, head_dim, source)
