"""Matches stored tensors with a model's parameters, by transformers' own rules for names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from .read_spans import convertible_types, is_convertible
from .safetensors_headers import StoredTensor

# Old checkpoints store these for each layer; the model computes them.
COMPUTED_BUFFERS = r"rotary_emb\.inv_freq|(^|\.)position_ids$"


@dataclass(frozen=True, slots=True)
class WeightMatching:
    """Result of matching a checkpoint with a model.

    Args:
        pairs: each stored tensor to read, with the model's name for it.
        unexpected: names of stored tensors that the model does not have.
        missing: names of the model's tensors that the checkpoint lacks.
        mismatched: descriptions of tensors of the wrong shape.
        inconvertible: descriptions of tensors whose type cannot become the model's.
        copies_suffice: True if copying the pairs loads the model; otherwise transformers must load
            it.
    """

    pairs: tuple[tuple[StoredTensor, str], ...]
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    inconvertible: tuple[str, ...] = ()
    copies_suffice: bool = True


def match_weights(
    model: PreTrainedModel,
    tensors: dict[str, torch.Tensor],
    stored: Iterable[StoredTensor],
    key_mapping: dict[str, str] | None,
) -> WeightMatching:
    """Match the names, shapes and types of stored tensors with those of a model.

    Args:
        model: the model; its parameters may be on the meta device.
        tensors: its parameters and persistent buffers by each of their names.
        stored: the checkpoint's tensors.
        key_mapping: replacements in stored names, by regular expression.
    """
    rules = get_model_conversion_mapping(model, key_mapping)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    prefix = model.base_model_prefix
    pairs: dict[str, StoredTensor] = {}
    unexpected, mismatched, inconvertible = [], [], []
    copies_suffice = not _keeps_some_in_float32(model)
    for tensor in stored:
        name, converted = rename_source_key(tensor.name, renamings, [], prefix, tensors)
        if name not in tensors:  # experts that are divided take what is stored one by one
            name, converted = rename_source_key(tensor.name, renamings, converters, prefix, tensors)
        if name not in tensors and tensor.name in tensors:
            name, converted = tensor.name, None
        if converted is not None and name in tensors:
            copies_suffice = False
        elif name not in tensors:
            unexpected.append(name)
        elif not _same_shape(shape := tuple(tensors[name].shape), tensor.shape):
            mismatched.append(f"{name} is {tensor.shape} and should be {shape}")
        elif not is_convertible(tensor, tensors[name]):
            wanted = convertible_types(tensors[name])
            inconvertible.append(f"{name} is stored as {tensor.dtype} and should be {wanted}")
        # If two stored tensors get the same name, transformers knows which one to take.
        copies_suffice = copies_suffice and name not in pairs
        pairs[name] = tensor
    pairs = {name: tensor for name, tensor in pairs.items() if name in tensors}
    filled = {id(tensors[name]) for name in pairs}
    # If a tied parameter is stored twice, transformers unties it unless both copies are equal.
    copies_suffice = copies_suffice and len(filled) == len(pairs)
    absent = [name for name, tensor in tensors.items() if id(tensor) not in filled]
    optional = _any_of(model._keys_to_ignore_on_load_missing)
    missing = [name for name in absent if not (optional and optional.search(name))]
    ignored = _any_of({*(model._keys_to_ignore_on_load_unexpected or ()), COMPUTED_BUFFERS})
    unexpected = [name for name in unexpected if not (ignored and ignored.search(name))]
    return WeightMatching(
        pairs=tuple((tensor, name) for name, tensor in pairs.items()),
        unexpected=tuple(sorted(unexpected)),
        missing=tuple(sorted(missing)),
        mismatched=tuple(sorted(mismatched)),
        inconvertible=tuple(sorted(inconvertible)),
        copies_suffice=copies_suffice and len(missing) == len(absent),
    )


def _same_shape(wanted: tuple[int, ...], stored: tuple[int, ...]) -> bool:
    """Return whether a tensor fits; a single number is stored as [1] or without axes."""
    return wanted == stored or (prod(wanted) == prod(stored) == 1 and len(wanted + stored) == 1)


def _any_of(patterns: Iterable[str] | None) -> re.Pattern[str] | None:
    found = [f"({pattern})" for pattern in patterns or ()]
    return re.compile("|".join(found)) if found else None


def _keeps_some_in_float32(model: PreTrainedModel) -> bool:
    """Return whether some parameters must be float32 in a model of this type."""
    always = getattr(model, "_keep_in_fp32_modules_strict", None)
    half = getattr(model, "_keep_in_fp32_modules", None)
    return bool(
        (always and model.dtype in (torch.float16, torch.bfloat16))
        or (half and model.dtype == torch.float16)
    )
