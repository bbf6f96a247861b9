"""Reads the configurations of fine-grained FP8, GPTQ and AWQ, as transformers has them.

Imports neither torch nor transformers.
"""

from collections.abc import Mapping
from typing import Any

from .compressed_tensors import UnreadFormatError
from .linear_format import FP8_BLOCK, INT4_GROUPS, LinearFormat, Packing

_FP8_KEYS = frozenset(
    {
        "quant_method", "activation_scheme", "weight_block_size", "modules_to_not_convert",
        "modules_to_convert", "ignored_layers", "dequantize", "fmt", "scale_fmt", "expert_dtype",
    }
)  # fmt: skip


def read_fp8(entry: Mapping[str, Any]) -> LinearFormat:
    """Return how the weights of a checkpoint in fine-grained FP8 are stored.

    Raises:
        UnreadFormatError: if anything in it is not read.
    """
    unknown = sorted(map(str, entry.keys() - _FP8_KEYS))
    if unknown:
        raise UnreadFormatError(f"the option {unknown[0]}")
    for key, read in (
        ("activation_scheme", ("dynamic",)),
        ("fmt", ("e4m3", "float8_e4m3fn")),
        ("scale_fmt", ("float",)),
        ("expert_dtype", ("fp8",)),
        ("modules_to_convert", ([],)),
    ):
        if entry.get(key) is not None and entry[key] not in read:
            raise UnreadFormatError(f"{key} {entry[key]!r}")
    block = entry.get("weight_block_size", [FP8_BLOCK, FP8_BLOCK])
    if block is None:
        return LinearFormat("fp8", rows_per_scale=0, scale_name="weight_scale_inv")
    if not isinstance(block, list | tuple) or list(block) != [FP8_BLOCK, FP8_BLOCK]:
        raise UnreadFormatError(f"blocks of {block}")
    return LinearFormat("fp8", FP8_BLOCK, FP8_BLOCK, scale_name="weight_scale_inv")


def read_gptq(entry: Mapping[str, Any]) -> LinearFormat:
    """Return how the weights of a GPTQ checkpoint are stored.

    Raises:
        UnreadFormatError: if anything in it is not read.
    """
    group = _four_bits(entry)
    if entry.get("desc_act"):
        raise UnreadFormatError("columns in the order of activations (desc_act)")
    excluded_modules(entry)
    if entry.get("lm_head"):
        raise UnreadFormatError("a quantized head")
    for key in ("adapter", "rotation", "is_marlin_format"):
        if entry.get(key):
            raise UnreadFormatError(f"the option {key}")
    versions: dict[str, Packing] = {"gptq": "gptq", "gptq_v2": "gptq_v2"}
    stored_as = str(entry.get("checkpoint_format") or entry.get("format") or "gptq")
    if stored_as not in versions:
        raise UnreadFormatError(f"the checkpoint_format {stored_as!r}")
    return LinearFormat(versions[stored_as], 1, group, symmetric=False)


def excluded_modules(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return regular expressions for modules that a GPTQ checkpoint leaves as they are.

    Raises:
        UnreadFormatError: if its ``dynamic`` does anything but exclude modules ("-:").
    """
    dynamic = entry.get("dynamic") or {}
    if not isinstance(dynamic, Mapping) or not all(str(each).startswith("-:") for each in dynamic):
        raise UnreadFormatError("modules of different kinds (dynamic)")
    return tuple(str(each).removeprefix("-:") for each in dynamic)


def read_awq(entry: Mapping[str, Any]) -> LinearFormat:
    """Return how the weights of an AWQ checkpoint are stored.

    Raises:
        UnreadFormatError: if anything in it is not read.
    """
    group = _four_bits(entry)
    version = str(entry.get("version", entry.get("format", "gemm"))).lower()
    if version != "gemm" or not entry.get("zero_point", True):
        raise UnreadFormatError(f"the version {version!r}, or no zero points")
    return LinearFormat("awq", 1, group, symmetric=False)


def _four_bits(entry: Mapping[str, Any]) -> int:
    bits = entry.get("bits", entry.get("w_bit", 4))
    group = entry.get("group_size", entry.get("q_group_size", 128))
    if bits != 4 or group not in (*INT4_GROUPS, -1):
        raise UnreadFormatError(f"{bits} bits in groups of {group}")
    return max(0, group)
