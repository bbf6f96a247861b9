"""Gives a model on the meta device the modules whose weights its checkpoint stores quantized."""

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn
from transformers import PreTrainedModel

from eightfold.kernels.experts.mxfp4_reference import DTYPES

from ..model_errors import UnsupportedModelError
from .mxfp4_experts import Mxfp4Experts
from .quantization_config import (
    MXFP4,
    READ,
    Quantization,
    fp8_while_loading,
    stored_names,
)
from .split_experts import GATE_UP, SplitExperts, is_divisible, layer_names, split_experts
from .stored_linear import StoredLinear

MXFP4_EXPERTS_CLASS = "GptOssExperts"  # of transformers
PLAIN_TYPES = ("BF16", "F16", "F32", "F64")  # safetensors' names


def use_stored_weights(
    model: PreTrainedModel, quantization: Quantization, stored_types: Mapping[str, str]
) -> None:
    """Replace the modules of a model on the meta device that hold quantized weights.

    A linear layer whose plain weight is in the checkpoint stays as it is: some releases leave
    layers alone that their configuration does not name.

    Args:
        model: the model.
        quantization: how config.json says that the weights are stored.
        stored_types: safetensors' name of the type of each stored tensor; may be empty.

    Raises:
        UnsupportedModelError: if a module's shape, its kind or the model's type does not allow it.
    """
    if quantization.method == MXFP4:
        _use_mxfp4_experts(model, quantization)
        return
    _refuse_quantized_embeddings(model, quantization, stored_types)
    _split_stored_experts(model, quantization, stored_types)
    for parent, child_name, child, name in list(_linear_layers(model)):
        stored = quantization.linear_format(name)
        plain = any(
            stored_types.get(f"{each}.weight") in PLAIN_TYPES for each in stored_names(name)
        )
        if stored is not None and not plain:
            setattr(parent, child_name, StoredLinear(child, stored))


def use_fp8_linear(model: PreTrainedModel) -> list[str]:
    """Replace the linear layers of a model on the meta device by ones that hold FP8, per channel.

    The head stays, and so do the embedding and the experts' routers.

    Returns:
        The names of the replaced layers.
    """
    quantization, found = fp8_while_loading(), []
    for parent, child_name, child, name in list(_linear_layers(model)):
        stored = quantization.linear_format(name)
        if stored is not None and child is not model.get_output_embeddings():
            setattr(parent, child_name, StoredLinear(child, stored))
            found.append(name)
    return found


def stored_linears(model: nn.Module) -> Iterator[StoredLinear]:
    """Yield the linear layers of a model that hold quantized weights."""
    for module in model.modules():
        if isinstance(module, StoredLinear):
            yield module


def has_stored_weights(model: nn.Module) -> bool:
    """Return whether a model has modules that hold quantized weights."""
    return any(isinstance(module, Mxfp4Experts | StoredLinear) for module in model.modules())


def describe_stored_weights(model: nn.Module) -> str | None:
    """Return in words which modules of a model hold quantized weights; ``None`` if there are none.

    If they were rounded while they were loaded, the words name the error that this made.
    """
    of_experts = {id(each) for split in _split(model) for each in stored_linears(split)}
    counts = Counter(
        f"linear layers in {layer.stored}"
        for layer in stored_linears(model)
        if id(layer) not in of_experts
    )
    for split in _split(model):
        for stored in dict.fromkeys(str(layer.stored) for layer in stored_linears(split)):
            counts[f"layers of experts in {stored}"] += 1
    experts = sum(isinstance(module, Mxfp4Experts) for module in model.modules())
    if experts:
        counts["layers of experts in MXFP4"] = experts
    error = getattr(model, "rounding_error", None)
    made = "" if error is None else f", rounded while loading: {error:.2%} of the weights' norm"
    return ", ".join(f"{count} {what}" for what, count in counts.items()) + made or None


def _split(model: nn.Module) -> list[SplitExperts]:
    return [module for module in model.modules() if isinstance(module, SplitExperts)]


def _use_mxfp4_experts(model: PreTrainedModel, quantization: Quantization) -> None:
    if model.dtype not in DTYPES:
        raise UnsupportedModelError(
            f"Weights in MXFP4 do not fit {str(model.dtype).removeprefix('torch.')}; set dtype to "
            "bfloat16 or float32."
        )
    chosen = [
        (parent, child_name, child)
        for name, parent in model.named_modules()
        for child_name, child in parent.named_children()
        if type(child).__name__ == MXFP4_EXPERTS_CLASS
        and quantization.converts(f"{name}.{child_name}")
    ]
    for parent, name, child in chosen:
        setattr(parent, name, Mxfp4Experts(child))


def _refuse_quantized_embeddings(
    model: PreTrainedModel, quantization: Quantization, stored_types: Mapping[str, str]
) -> None:
    parts = ("weight_scale", "weight_packed", "qweight")
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and any(
            f"{each}.{part}" in stored_types for each in stored_names(name) for part in parts
        ):
            raise UnsupportedModelError(
                f"This {model.config.model_type} checkpoint has a quantized embedding ({name}), "
                f"stored as {quantization}, which the engine does not run; use one whose "
                "embedding is in bfloat16, float16 or float32."
            )


def _split_stored_experts(
    model: PreTrainedModel, quantization: Quantization, stored_types: Mapping[str, str]
) -> None:
    """Divide experts that are stored one by one, and refuse those that are quantized otherwise."""
    layers, one_by_one = layer_names(str(model.config.model_type), stored_types), []
    for name, module in model.named_modules():
        if all(each.dim() < 3 for each in module.parameters(recurse=False)):
            continue
        stacked = {stored_types.get(f"{each}.{GATE_UP}") for each in stored_names(name)} - {None}
        if stacked and stacked <= set(PLAIN_TYPES):
            continue
        quantized = quantization.linear_format(f"{name}.0.{layers[0]}") is not None
        if stacked or (quantized and not is_divisible(module)):
            how = "all its experts in one tensor" if stacked else "experts"
            raise UnsupportedModelError(
                f"This {model.config.model_type} checkpoint has {how} quantized as "
                f"{quantization}, which the engine does not run; {READ}."
            )
        one_by_one.append(name)
    split_experts(model, one_by_one, layers)


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear, str]]:
    """Yield the parent of each linear layer, its name there, the layer, and its whole name."""
    for parent_name, parent in model.named_modules():
        for child_name, child in parent.named_children():
            if type(child) is nn.Linear:
                yield parent, child_name, child, f"{parent_name}.{child_name}".lstrip(".")
