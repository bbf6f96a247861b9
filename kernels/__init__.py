"""Attention, sampling and layers: Triton and CUDA C++ kernels with PyTorch references beside them.

Importing this package imports neither PyTorch nor Triton. A module is imported when one of its
names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention.float64_reference import paged_decode_reference, paged_prefill_reference
    from .attention.one_copy_keys import OneCopy, fold_key_weight, rebuild_keys
    from .attention.paged_decode import DecodeConfig, paged_decode
    from .attention.paged_prefill import PrefillConfig, paged_prefill
    from .attention.split_kv import decode_workspace_size
    from .experts.expert_weights import ExpertWeights
    from .experts.experts_forward import (
        experts_forward,
        experts_reference,
        experts_workspace_size,
    )
    from .experts.router import route, route_reference
    from .layers.gated_activation import gated_gelu, gated_gelu_reference
    from .layers.layer_tail import (
        LayerTailWeights,
        layer_tail,
        layer_tail_fits,
        layer_tail_reference,
    )
    from .layers.linear_few_rows import LinearConfig, linear_few_rows, linear_few_rows_reference
    from .layers.linear_many_rows import (
        linear_many_rows,
        linear_many_rows_fits,
        linear_many_rows_reference,
    )
    from .layers.rms_norm import add_rms_norm, add_rms_norm_reference
    from .layers.rotary_embedding import norm_rope_and_cache, norm_rope_and_cache_reference
    from .layers.token_embedding import (
        embed_rms_norm,
        embed_rms_norm_reference,
        fill_sampled_tokens,
        fill_sampled_tokens_reference,
    )
    from .sampling.row_entropy import entropy_workspace_size, row_entropy, row_entropy_reference
    from .sampling.torch_sampler import SamplingBatch, sample
    from .sampling.triton_sampler import sample_tokens, sampler_workspace_size
    from .supported_gpus import is_supported, unsupported_reason

__all__ = [
    "DecodeConfig",
    "ExpertWeights",
    "LayerTailWeights",
    "LinearConfig",
    "OneCopy",
    "PrefillConfig",
    "SamplingBatch",
    "add_rms_norm",
    "add_rms_norm_reference",
    "decode_workspace_size",
    "embed_rms_norm",
    "embed_rms_norm_reference",
    "entropy_workspace_size",
    "experts_forward",
    "experts_reference",
    "experts_workspace_size",
    "fill_sampled_tokens",
    "fill_sampled_tokens_reference",
    "fold_key_weight",
    "gated_gelu",
    "gated_gelu_reference",
    "is_supported",
    "layer_tail",
    "layer_tail_fits",
    "layer_tail_reference",
    "linear_few_rows",
    "linear_few_rows_reference",
    "linear_many_rows",
    "linear_many_rows_fits",
    "linear_many_rows_reference",
    "norm_rope_and_cache",
    "norm_rope_and_cache_reference",
    "paged_decode",
    "paged_decode_reference",
    "paged_prefill",
    "paged_prefill_reference",
    "rebuild_keys",
    "route",
    "route_reference",
    "row_entropy",
    "row_entropy_reference",
    "sample",
    "sample_tokens",
    "sampler_workspace_size",
    "unsupported_reason",
]

_NAMES_OF_MODULE = {
    "attention.float64_reference": ("paged_decode_reference", "paged_prefill_reference"),
    "attention.one_copy_keys": ("OneCopy", "fold_key_weight", "rebuild_keys"),
    "attention.paged_decode": ("DecodeConfig", "paged_decode"),
    "attention.paged_prefill": ("PrefillConfig", "paged_prefill"),
    "attention.split_kv": ("decode_workspace_size",),
    "experts.expert_weights": ("ExpertWeights",),
    "experts.experts_forward": (
        "experts_forward",
        "experts_reference",
        "experts_workspace_size",
    ),
    "experts.router": ("route", "route_reference"),
    "layers.gated_activation": ("gated_gelu", "gated_gelu_reference"),
    "layers.layer_tail": (
        "LayerTailWeights",
        "layer_tail",
        "layer_tail_fits",
        "layer_tail_reference",
    ),
    "layers.linear_few_rows": ("LinearConfig", "linear_few_rows", "linear_few_rows_reference"),
    "layers.linear_many_rows": (
        "linear_many_rows",
        "linear_many_rows_fits",
        "linear_many_rows_reference",
    ),
    "layers.rms_norm": ("add_rms_norm", "add_rms_norm_reference"),
    "layers.rotary_embedding": ("norm_rope_and_cache", "norm_rope_and_cache_reference"),
    "layers.token_embedding": (
        "embed_rms_norm",
        "embed_rms_norm_reference",
        "fill_sampled_tokens",
        "fill_sampled_tokens_reference",
    ),
    "sampling.row_entropy": ("entropy_workspace_size", "row_entropy", "row_entropy_reference"),
    "sampling.torch_sampler": ("SamplingBatch", "sample"),
    "sampling.triton_sampler": ("sample_tokens", "sampler_workspace_size"),
    "supported_gpus": ("is_supported", "unsupported_reason"),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
