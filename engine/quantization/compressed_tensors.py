"""Reads the configuration of compressed-tensors, the format of llm-compressor and vLLM.

Imports neither torch nor transformers.
"""

from collections.abc import Mapping
from typing import Any

from .linear_format import FP8_BLOCK, INT4_GROUPS, LinearFormat

# Keys of the whole configuration, and of a group's weights, that do not change what is stored.
_IGNORED_KEYS = frozenset(
    {
        "quant_method", "config_groups", "ignore", "format", "quantization_status", "version",
        "global_compression_ratio", "run_compressed", "dequantize", "use_optimized_inference",
    }
)  # fmt: skip
_MUST_BE_EMPTY = ("kv_cache_scheme", "sparsity_config", "transform_config", "moe_sparsity_config")
_GROUP_KEYS = frozenset({"targets", "weights", "input_activations", "output_activations", "format"})
_WEIGHT_KEYS = frozenset(
    {
        "num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic",
        "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype",
    }
)  # fmt: skip
_SCALE_TYPES = ("bfloat16", "float16", "float32", "float64")
LINEAR = "Linear"
_FP8_FORMATS = ("float-quantized", "naive-quantized")
_INT4_FORMATS = ("pack-quantized",)


class UnreadFormatError(Exception):
    """A configuration that is not read; the message says in words what it asks for."""


def read_groups(entry: Mapping[str, Any]) -> tuple[tuple[tuple[str, ...], LinearFormat], ...]:
    """Return targets and how their weights are stored, the first that matches a module counts.

    As in compressed-tensors, names come first, then regular expressions in the order of their
    characters, then "Linear"; of two groups with the same target the last one counts.

    Args:
        entry: the ``quantization_config``.

    Raises:
        UnreadFormatError: if anything in it is not read.
    """
    for key in _MUST_BE_EMPTY:
        if entry.get(key):
            raise UnreadFormatError(f"the option {key}")
    _check_keys(entry, _IGNORED_KEYS | set(_MUST_BE_EMPTY))
    if entry.get("quantization_status", "compressed") != "compressed":
        raise UnreadFormatError(f"the status {entry['quantization_status']!r}")
    groups = entry.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise UnreadFormatError("no config_groups")
    stored: dict[str, LinearFormat] = {}
    for group in groups.values():
        targets, how = _read_group(group, entry.get("format"))
        stored |= dict.fromkeys(targets, how)
    found: dict[tuple[str, LinearFormat], list[str]] = {}
    for target in sorted(stored, key=lambda each: (each == LINEAR, each.startswith("re:"), each)):
        # Names are alternatives of one another, unlike expressions.
        rank = target if target == LINEAR or target.startswith("re:") else ""
        found.setdefault((rank, stored[target]), []).append(target)
    return tuple((tuple(targets), how) for (_, how), targets in found.items())


def _check_keys(given: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse an option that the format did not have when this was written."""
    unknown = sorted(str(key) for key in given.keys() - known if given[key] is not None)
    if unknown:
        raise UnreadFormatError(f"the option {unknown[0]}")


def _read_group(group: Any, whole_format: Any) -> tuple[tuple[str, ...], LinearFormat]:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise UnreadFormatError("a group that is only named, or without weights")
    _check_keys(group, _GROUP_KEYS)
    _check_keys(weights, _WEIGHT_KEYS)
    if group.get("output_activations"):
        raise UnreadFormatError("quantized outputs")
    activations = group.get("input_activations") or {}
    if activations and activations.get("dynamic") is not True:
        raise UnreadFormatError("inputs with fixed scales")
    targets = group.get("targets")
    if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
        raise UnreadFormatError("a group without a list of targets")
    stored = _weight_format(weights, group.get("format") or whole_format)
    scale_type = str(weights.get("scale_dtype") or _SCALE_TYPES[0]).removeprefix("torch.")
    if scale_type not in _SCALE_TYPES:
        raise UnreadFormatError(f"scales in {scale_type}")
    return tuple(targets), stored


def _weight_format(weights: Mapping[str, Any], stored_as: Any) -> LinearFormat:
    kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
    strategy, size = weights.get("strategy"), weights.get("group_size")
    symmetric = bool(weights.get("symmetric", True))
    if strategy is None:  # as compressed-tensors itself infers it
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    if str(weights.get("actorder")).lower() in ("group", "dynamic", "true"):
        raise UnreadFormatError("columns in the order of activations (actorder)")
    if (kind, bits) == ("float", 8) and stored_as in _FP8_FORMATS and symmetric:
        if strategy == "tensor":
            return LinearFormat("fp8", rows_per_scale=0)
        if strategy == "channel":
            return LinearFormat("fp8")
        if strategy == "block" and weights.get("block_structure") == [FP8_BLOCK, FP8_BLOCK]:
            return LinearFormat("fp8", FP8_BLOCK, FP8_BLOCK)
    if (kind, bits) == ("int", 4) and stored_as in _INT4_FORMATS:
        if strategy == "group" and size in INT4_GROUPS:
            return LinearFormat("compressed-tensors", 1, size, symmetric)
        if strategy == "channel":
            return LinearFormat("compressed-tensors", 1, 0, symmetric)
    scale = f"{strategy} of {size}" if strategy == "group" else str(strategy)
    raise UnreadFormatError(f"weights of {bits} bits, {kind}, per {scale}, stored as {stored_as}")
