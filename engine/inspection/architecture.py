"""The architecture of a model as the engine needs it, found without reading a weight."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from eightfold.common.error_text import first_line

from ..model_errors import UnsupportedModelError
from ..quantization.meta_modules import has_stored_weights
from ..quantization.quantization_config import (
    Quantization,
    fp8_while_loading,
    read_quantization,
)
from .attention_probe import AttentionRequirements, probe_attention
from .kv_geometry import HeadShape, LayerSpec, layer_specs, layer_windows, steady_positions

logger = logging.getLogger(__name__)
_MODELS = AutoModelForCausalLM._model_mapping


@dataclass(frozen=True, slots=True)
class Architecture:
    """A causal language model whose layers are full or sliding-window attention.

    Attributes:
        config: configuration of the text model; of a multimodal checkpoint's text part.
        model_class: transformers class that runs it.
        layers: attention layers in order.
        max_positions: number of positions that the model was made for, or fewer if its rotary
            embeddings depend on the longest sequence of a batch beyond them.
        wrapped: True if the checkpoint is a multimodal model around the text model.
        softcap: True if attention scores are capped, which the fused decoder does not do.
        quantization: how the checkpoint's weights are stored; ``None`` if they are not quantized.
    """

    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    layers: tuple[LayerSpec, ...]
    max_positions: int
    wrapped: bool
    softcap: bool = False
    quantization: Quantization | None = None

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Window of each page group: ``None`` for full attention first, then smaller to larger."""
        found = {layer.window for layer in self.layers}
        return tuple(sorted(found, key=lambda window: (window is not None, window or 0)))


def attention_modules(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the attention module of each layer, in order."""
    for layer in getattr(model, model.base_model_prefix).layers:
        yield layer.self_attn


def text_model(model: PreTrainedModel, architecture: Architecture) -> PreTrainedModel:
    """Return the causal language model within a multimodal one, over the same weights.

    Args:
        model: returned as it is if it is not a multimodal model.

    Raises:
        UnsupportedModelError: if the parts of the model are not where transformers keeps them, or
            if transformers has quantized it.
    """
    if architecture.quantization is not None and not has_stored_weights(model):
        raise UnsupportedModelError(
            f"This {model.config.model_type} model is quantized by transformers, whose modules the "
            "engine does not run; give the engine the checkpoint's folder."
        )
    if not architecture.wrapped:
        return model
    try:
        layers, head = model.model.language_model, model.lm_head
    except AttributeError:
        raise UnsupportedModelError(
            f"The text part of this {model.config.model_type} model was not found; save the model "
            "with save_pretrained and give the engine the folder."
        ) from None
    with torch.device("meta"):
        text = architecture.model_class(architecture.config)
    setattr(text, text.base_model_prefix, layers)
    text.lm_head = head
    return text.eval()


def inspect_architecture(config: PretrainedConfig, weights: str | None = None) -> Architecture:
    """Find the kinds and shapes of a model's layers.

    Args:
        config: configuration of a causal language model, or of a multimodal model around one.
        weights: ``EngineConfig.weights``.

    Raises:
        UnsupportedModelError: if a layer is neither full nor sliding-window attention, if the
            engine cannot replace the model's attention, or if the weights are quantized in a way
            that is not read.
    """
    text = _text_config(config)
    name = text.model_type
    quantization = read_quantization(config.to_dict())
    if weights is not None:
        if quantization is not None:
            raise UnsupportedModelError(
                f"This {name} checkpoint is quantized already, as {quantization}; leave weights at "
                "None."
            )
        quantization = fp8_while_loading()
    windows = _windows(text)
    if getattr(text, "is_causal", True) is False:
        raise UnsupportedModelError(f"{name} has attention that is not causal.")
    if not getattr(_MODELS[type(text)], "_supports_attention_backend", False):
        raise UnsupportedModelError(f"{name} does not let its attention be replaced.")
    positions = getattr(text, "max_position_embeddings", None)
    if not positions or positions < 1:
        raise UnsupportedModelError(f"{name} does not say how many positions it was made for.")
    positions = _steady_positions(name, text, int(positions))
    model = _without_weights(text)
    layers = _layers(model, text, windows)
    calls = _probe(model, name, positions, windows)
    if calls is not None:
        _check_calls(name, layers, list(attention_modules(model)), calls)
    return Architecture(
        config=text,
        model_class=type(model),
        layers=layers,
        max_positions=positions,
        wrapped=text is not config,
        softcap=any(call.softcap for call in calls or ()),
        quantization=quantization,
    )


def _text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The language model's part of a configuration."""
    try:
        text = config.get_text_config(decoder=True)
    except ValueError:
        raise UnsupportedModelError(
            f"{config.model_type} is not a single language model."
        ) from None
    if not isinstance(text, PretrainedConfig):
        raise UnsupportedModelError(
            f"The text_config of this {config.model_type} model is not a JSON object; copy its "
            "config.json again."
        )
    if type(text) not in _MODELS:
        raise UnsupportedModelError(
            f"{text.model_type} is not a causal language model that transformers has."
        )
    return text


def _without_weights(text: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device."""
    try:
        with torch.device("meta"):
            return _MODELS[type(text)](copy.deepcopy(text)).eval()
    except Exception as error:  # settings that do not fit together raise anything
        raise UnsupportedModelError(
            f"transformers cannot build this {text.model_type} model: "
            f"{type(error).__name__}: {first_line(error).rstrip('.')}."
        ) from error


def _probe(
    model: PreTrainedModel, name: str, positions: int, windows: tuple[int | None, ...]
) -> list[AttentionRequirements] | None:
    """Return what ``probe_attention`` finds.

    Masks are evaluated past the longest window, which may be longer than any sequence.
    """
    longest = max((window or 0 for window in windows), default=0)
    try:
        return probe_attention(model, max(positions, longest + 2))
    except Exception as error:  # settings that do not fit together raise anything
        raise UnsupportedModelError(
            f"transformers cannot run this {name} model: {type(error).__name__}: "
            f"{first_line(error).rstrip('.')}."
        ) from error


def _steady_positions(name: str, text: PretrainedConfig, positions: int) -> int:
    """Return up to which position a sequence does not depend on others, and log if that is less."""
    steady = steady_positions(vars(text), getattr(text, "rope_parameters", None), positions)
    if steady < positions:
        logger.warning(
            "contexts are limited to %d tokens: beyond them the 'longrope' rotary embeddings of %s "
            "depend on the longest sequence of the batch",
            steady,
            name,
        )
    return steady


def _windows(text: PretrainedConfig) -> tuple[int | None, ...]:
    """Each layer's window, by the configuration."""
    return layer_windows(
        text.model_type,
        getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None),
        getattr(text, "sliding_window", None),
        num_layers=getattr(text, "num_hidden_layers", None),
        use_sliding_window=getattr(text, "use_sliding_window", True),
    )


def _layers(
    model: PreTrainedModel, text: PretrainedConfig, windows: tuple[int | None, ...]
) -> tuple[LayerSpec, ...]:
    name = text.model_type
    try:
        modules = list(attention_modules(model))
    except AttributeError:
        raise UnsupportedModelError(
            f"{name} has layers without a self_attn module, which cannot be paged."
        ) from None
    if len(modules) != len(windows):
        raise UnsupportedModelError(
            f"{name} has {len(modules)} layers, but its configuration names {len(windows)} kinds."
        )
    if not modules:
        raise UnsupportedModelError(f"{name} has no layers; copy its config.json again.")
    _check_experts(text)
    shapes = [_head_shape(attention, text) for attention in modules]
    return layer_specs(windows, shapes, int(getattr(text, "num_kv_shared_layers", 0) or 0))


def _check_experts(text: PretrainedConfig) -> None:
    """Raise UnsupportedModelError if a token would go to no expert, or to more than there are."""
    counts = (getattr(text, name, None) for name in ("num_local_experts", "num_experts"))
    experts = next((count for count in counts if isinstance(count, int) and count > 0), None)
    chosen = getattr(text, "num_experts_per_tok", None)
    if experts is not None and isinstance(chosen, int) and not 1 <= chosen <= experts:
        raise UnsupportedModelError(
            f"{text.model_type} has num_experts_per_tok {chosen} of {experts} experts, which "
            "cannot be; copy its config.json again."
        )


def _head_shape(attention: nn.Module, text: PretrainedConfig) -> HeadShape:
    """KV heads of a layer, as its module has them."""
    name = text.model_type
    head_dim = getattr(attention, "head_dim", None)
    group = getattr(attention, "num_key_value_groups", None)
    query = getattr(attention, "q_proj", None)
    if head_dim is None or group is None or hasattr(attention, "kv_lora_rank"):
        raise UnsupportedModelError(
            f"{name} does not have plain multi-head, multi-query or grouped-query attention."
        )
    if getattr(attention, "is_causal", True) is False:
        raise UnsupportedModelError(f"{name} has attention that is not causal.")
    width = getattr(query, "out_features", None)
    if head_dim < 1 or group < 1:
        raise UnsupportedModelError(
            f"{name} has heads of {head_dim} elements, and {group} heads of queries for each of "
            "keys and values, which cannot be; copy its config.json again."
        )
    heads = text.num_attention_heads if width is None else width // head_dim
    return HeadShape(heads // group, head_dim)


def _check_calls(
    name: str,
    layers: tuple[LayerSpec, ...],
    modules: list[nn.Module],
    calls: list[AttentionRequirements],
) -> None:
    """Refuse a model whose layers require anything but what their pages can give."""
    unsupported = sorted({what for call in calls for what in call.unsupported})
    if unsupported:
        raise UnsupportedModelError(
            f"{name} asks attention for {', '.join(unsupported)}, which cannot be paged."
        )
    if [call.module for call in calls] != modules:
        raise UnsupportedModelError(
            f"{name} does not attend once in each layer, which cannot be paged."
        )
    for layer, call in zip(layers, calls, strict=True):
        shape = (call.kv_heads, call.head_dim, call.value_dim)
        if shape != (layer.kv_heads, layer.head_dim, layer.head_dim):
            raise UnsupportedModelError(
                f"Layer {layer.index} of {name} has {call.kv_heads} heads with keys of "
                f"{call.head_dim} and values of {call.value_dim}, not {layer.kv_heads} with "
                f"{layer.head_dim} of both, which cannot be paged."
            )
        others = call.windows - {layer.window}
        if others:
            said, found = ("all" if w is None else w for w in (layer.window, next(iter(others))))
            raise UnsupportedModelError(
                f"Layer {layer.index} of {name} sees {found} tokens before it, but its "
                f"configuration says {said}."
            )
