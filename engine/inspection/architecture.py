"""What the engine must know of a model's layers, found without reading a weight."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from eightfold.common.error_text import first_line

from ..model_errors import UnsupportedModelError
from .attention_probe import Ask, attention_asks

# These recompute their frequencies from the longest position in the batch, so one sequence's
# rotations would depend on its neighbours.
BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")
_MODELS = AutoModelForCausalLM._model_mapping


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
        softcap: whether attention scores are capped, which only a CPU does.
    """

    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    layers: tuple[LayerSpec, ...]
    max_positions: int
    wrapped: bool
    softcap: bool = False

    @property
    def windows(self) -> tuple[int | None, ...]:
        """One entry per page group: ``None`` for the full-attention layers, then the windows."""
        found = {layer.window for layer in self.layers}
        return tuple(sorted(found, key=lambda window: (window is not None, window or 0)))


def attention_modules(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The attention module of each layer, in order."""
    for layer in getattr(model, model.base_model_prefix).layers:
        yield layer.self_attn


def text_model(model: PreTrainedModel, architecture: Architecture) -> PreTrainedModel:
    """The causal language model of a multimodal one, over the same weights.

    Raises:
        UnsupportedModelError: where its parts are not where transformers keeps them.
    """
    if not architecture.wrapped:
        return model
    try:
        layers, head = model.model.language_model, model.lm_head
    except AttributeError:
        raise UnsupportedModelError(
            f"the text part of this {model.config.model_type} model was not found; save it with "
            "save_pretrained and give the engine the folder"
        ) from None
    with torch.device("meta"):
        text = architecture.model_class(architecture.config)
    setattr(text, text.base_model_prefix, layers)
    text.lm_head = head
    return text.eval()


def inspect(config: PretrainedConfig) -> Architecture:
    """Find the layers' kinds and shapes.

    Args:
        config: of a causal language model, or of a multimodal model around one.

    Raises:
        UnsupportedModelError: where a layer is neither full nor sliding-window attention, or the
            model does not let its attention be replaced.
    """
    text = _text_config(config)
    name = text.model_type
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
    if not getattr(_MODELS[type(text)], "_supports_attention_backend", False):
        raise UnsupportedModelError(f"{name} does not let its attention be replaced")
    positions = getattr(text, "max_position_embeddings", None)
    if not positions:
        raise UnsupportedModelError(f"{name} does not say how many positions it was made for")
    model = _without_weights(text)
    layers = list(_layers(model, text, windows))
    asks = attention_asks(model, int(positions))
    if asks is not None:
        _compare(name, layers, list(attention_modules(model)), asks)
    return Architecture(
        config=text,
        model_class=type(model),
        layers=tuple(layers),
        max_positions=int(positions),
        wrapped=text is not config,
        softcap=any(ask.softcap for ask in asks or ()),
    )


def _text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The language model's part; UnsupportedModelError where transformers has no such model."""
    try:
        text = config.get_text_config(decoder=True)
    except ValueError:
        raise UnsupportedModelError(f"{config.model_type} is no single language model") from None
    if type(text) not in _MODELS:
        raise UnsupportedModelError(
            f"{text.model_type} is not a causal language model that transformers has"
        )
    return text


def _without_weights(text: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device, where nothing is allocated or read."""
    try:
        with torch.device("meta"):
            return _MODELS[type(text)](copy.deepcopy(text)).eval()
    except Exception as error:  # whatever a model makes of settings that do not fit together
        raise UnsupportedModelError(
            f"transformers cannot build this {text.model_type} model: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


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
        count = getattr(text, "num_hidden_layers", None)
        if count is None:
            raise UnsupportedModelError(f"{text.model_type} does not say how many layers it has")
        kinds = ["sliding_attention" if used else "full_attention"] * count
    for index, kind in enumerate(kinds):
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(
                f"{text.model_type} has {kind!r} layers (layer {index} is the first), which cannot "
                "be paged; only full and sliding-window attention can"
            )
        if kind == "sliding_attention" and not window:
            raise UnsupportedModelError(
                f"{text.model_type} has sliding-window layers but no sliding_window"
            )
        yield int(window) if kind == "sliding_attention" else None


def _layers(
    model: PreTrainedModel, text: PretrainedConfig, windows: list[int | None]
) -> Iterator[LayerSpec]:
    name = text.model_type
    try:
        modules = list(attention_modules(model))
    except AttributeError:
        raise UnsupportedModelError(
            f"{name} has layers without a self_attn module, which cannot be paged"
        ) from None
    if len(modules) != len(windows):
        raise UnsupportedModelError(
            f"{name} has {len(modules)} layers, but its configuration names {len(windows)} kinds"
        )
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
        width = getattr(query, "out_features", None)
        heads = text.num_attention_heads if width is None else width // head_dim
        source = index
        if shared and index >= first_shared:
            source = max(i for i in range(first_shared) if windows[i] == window)
        yield LayerSpec(index, window, heads // group, head_dim, source)


def _compare(name: str, layers: list[LayerSpec], modules: list[nn.Module], asks: list[Ask]) -> None:
    """Refuse a model whose layers do not ask for just what their pages can give."""
    unmet = sorted({what for ask in asks for what in ask.unmet})
    if unmet:
        raise UnsupportedModelError(
            f"{name} asks attention for {', '.join(unmet)}, which cannot be paged"
        )
    if [ask.module for ask in asks] != modules:
        raise UnsupportedModelError(
            f"{name} does not attend once in each layer, which cannot be paged"
        )
    for layer, ask in zip(layers, asks, strict=True):
        shape = (ask.kv_heads, ask.head_dim, ask.value_dim)
        if shape != (layer.kv_heads, layer.head_dim, layer.head_dim):
            raise UnsupportedModelError(
                f"layer {layer.index} of {name} has {ask.kv_heads} heads with keys of "
                f"{ask.head_dim} and values of {ask.value_dim}, not {layer.kv_heads} with "
                f"{layer.head_dim} of both, which cannot be paged"
            )
        if ask.windows - {layer.window}:
            said, found = ("all" if w is None else w for w in (layer.window, *ask.windows))
            raise UnsupportedModelError(
                f"layer {layer.index} of {name} sees {found} tokens before it, but its "
                f"configuration says {said}"
            )
