"""Which stored tensor goes where in a model, by transformers' own rules for names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from .read_spans import convertible
from .safetensors_headers import StoredTensor

# Stored per layer by old checkpoints; the model computes them.
COMPUTED = r"rotary_emb\.inv_freq|(^|\.)position_ids$"


@dataclass(frozen=True, slots=True)
class Matching:
    """pairs: what is read, and the model's name for it.

    surplus, missing, misshaped, mistyped: accounts of what is wrong.
    plain: whether copying the pairs is all there is to do; where it is not, transformers loads.
    """

    pairs: tuple[tuple[StoredTensor, str], ...]
    surplus: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    mistyped: tuple[str, ...] = ()
    plain: bool = True


def match(
    model: PreTrainedModel,
    places: dict[str, torch.Tensor],
    stored: Iterable[StoredTensor],
    key_mapping: dict[str, str] | None,
) -> Matching:
    """Match names, shapes and types.

    Args:
        places: the model's parameters and persistent buffers by every name they have.
        key_mapping: patterns of stored names, and what replaces them.
    """
    rules = get_model_conversion_mapping(model, key_mapping)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    prefix = model.base_model_prefix
    pairs: dict[str, StoredTensor] = {}
    surplus, misshaped, mistyped, plain = [], [], [], not _kept_wider(model)
    for tensor in stored:
        name, converted = rename_source_key(tensor.name, renamings, converters, prefix, places)
        if name not in places and tensor.name in places:
            name, converted = tensor.name, None
        if converted is not None and name in places:
            plain = False
        elif name not in places:
            surplus.append(name)
        elif tuple(places[name].shape) != tensor.shape:
            misshaped.append(f"{name} is {tensor.shape} and should be {tuple(places[name].shape)}")
        elif not convertible(tensor, places[name]):
            mistyped.append(f"{name} is stored as {tensor.dtype}")
        # Two stored tensors for one name: transformers knows which.
        plain = plain and name not in pairs
        pairs[name] = tensor
    pairs = {name: tensor for name, tensor in pairs.items() if name in places}
    filled = [id(places[name]) for name in pairs]
    plain = plain and len(set(filled)) == len(filled)  # stored twice: tied only where equal
    absent = [name for name, place in places.items() if id(place) not in set(filled)]
    optional = _pattern(model._keys_to_ignore_on_load_missing)
    missing = [name for name in absent if not (optional and optional.search(name))]
    ignored = _pattern({*(model._keys_to_ignore_on_load_unexpected or ()), COMPUTED})
    return Matching(
        pairs=tuple((tensor, name) for name, tensor in pairs.items()),
        surplus=tuple(sorted(name for name in surplus if not (ignored and ignored.search(name)))),
        missing=tuple(sorted(missing)),
        misshaped=tuple(sorted(misshaped)),
        mistyped=tuple(sorted(mistyped)),
        plain=plain and len(missing) == len(absent),
    )


def _pattern(patterns: Iterable[str] | None) -> re.Pattern[str] | None:
    found = [f"({pattern})" for pattern in patterns or ()]
    return re.compile("|".join(found)) if found else None


def _kept_wider(model: PreTrainedModel) -> bool:
    """Whether some parameters must be float32 in a model of this type."""
    always = getattr(model, "_keep_in_fp32_modules_strict", None)
    half = getattr(model, "_keep_in_fp32_modules", None)
    return bool(
        (always and model.dtype in (torch.float16, torch.bfloat16))
        or (half and model.dtype == torch.float16)
    )
