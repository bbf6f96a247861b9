"""Builds every Triton kernel for Hopper in Gemma-4-31B's shapes; no GPU is needed.

The interpreter accepts what the compiler refuses. Run in a process of its own, without
``TRITON_INTERPRET``; prints one line per kernel and exits with 1 where one does not build.
"""

import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eightfold.kernels.attention import paged_decode, paged_prefill, split_kv
from eightfold.kernels.attention.flash_attn import flash_attn_prefill
from eightfold.kernels.layers import (
    gated_gelu,
    linear_few_rows,
    rms_norm,
    rotary_embedding,
    token_embedding,
)
from eightfold.kernels.sampling import candidate_sampler, row_entropy, triton_sampler

HOPPER = GPUTarget("cuda", 90, 32)
F, I, L, B = "*fp32", "*i32", "*i64", "*bf16"  # noqa: E741
INTEGERS = dict.fromkeys(
    ("V", "rows", "step", "sequences", "page_table_stride", "M", "N"), "i32"
) | dict.fromkeys(("softcap", "scale", "eps"), "fp32")
SAMPLER = INTEGERS | {
    "logits": F, "temperature": F, "maxima": F, "parts": F, "masses": F, "counts": I, "top_k": L,
    "top_p": F, "min_p": F, "bounds": F, "values": F, "tokens": I, "seeds": L, "positions": L,
    "chosen": I, "limits": F, "best": F, "best_at": I, "out": L, "setting": L, "states": F,
    "all_sums": F,
}  # fmt: skip
ATTENTION = INTEGERS | {
    "q": B, "k": B, "v": B, "page_table": I, "seq_lens": I, "first_pos": I, "query_starts": I, "cos": F,
    "sin": F, "key_weight": B, "sinks": B, "out": B, "part": F, "stats": F,
    "key_starts": I, "keys": B, "values": B,
}  # fmt: skip
LAYER = INTEGERS | {
    "y": B, "residual": B, "post_weight": B, "next_weight": B, "out": B, "qkv": B, "q_weight": B,
    "k_weight": B, "cos": F, "sin": F, "positions": I, "slots": I, "q_out": B, "key_cache": B,
    "value_cache": B, "tokens": I, "source": I, "drawn": L, "chosen": I, "embedding": B, "zero": I,
    "weight": B, "zeros": "i32", "gate_up": B, "x": B, "w_pointer": B,
    "w": "tensordesc<bf16[64,128]>",
}  # fmt: skip

Build = tuple[Any, dict[str, str], dict[str, Any], int]


def sampling() -> Iterator[Build]:
    logits = {"NB": 64, "NBP": 64, "BLOCK": 4096, "PDL": True}
    few = {
        "NP": 256,
        "PARTS": 4,
        "MAX_CANDIDATES": candidate_sampler.MAX_CANDIDATES,
        "SHARE": candidate_sampler.SHARE,
    }
    yield candidate_sampler._survey, SAMPLER, logits | few, 8
    yield candidate_sampler._bound, SAMPLER, logits | few, 16
    yield candidate_sampler._collect, SAMPLER, logits | few, 8
    yield candidate_sampler._settle, SAMPLER, logits | few, 1
    for mass in (False, True):
        for last in (False, True):
            passes = {"LANES": 1024, "WAYS": 16, "RANGE": 64.0, "LAST": last, "MASS": mass}
            setting = {"setting": F if mass else L}
            yield triton_sampler._search, SAMPLER | setting, logits | passes, 8
    yield triton_sampler._draw, SAMPLER, logits, 8
    yield triton_sampler._finish, SAMPLER, logits, 1
    own = {"moments": F, "out": F}
    yield row_entropy._partial, SAMPLER | own, {"NB": 32, "BLOCK": 8192, "PDL": True}, 8
    yield row_entropy._merge, SAMPLER | own, {"NB": 32, "NBP": 32, "PDL": True}, 1


def attention() -> Iterator[Build]:
    shared = {"HQ": 32, "PS": 64, "SP": 16, "HAS_SINKS": False, "PDL": True, "QLEN": 1, "N": 16}
    window = shared | {
        "HK": 16, "D": 256, "C": 256, "NC": 1, "PAIRS": 0, "WINDOW": 1024, "SPLIT": 0, "SHORT": 0,
        "ONE_COPY": False, "HAS_FIRST": True, "BN": 32, "STAGES": 8, "P": 16,
    }  # fmt: skip
    one_copy = shared | {
        "HK": 4, "D": 512, "C": 64, "NC": 8, "PAIRS": 64, "WINDOW": 0, "SPLIT": 1024, "SHORT": 256,
        "ONE_COPY": True, "HAS_FIRST": False, "BN": 32, "STAGES": 5, "P": 64,
    }  # fmt: skip
    yield paged_decode._paged_decode, ATTENTION, window, 4
    yield paged_decode._paged_decode, ATTENTION, one_copy, 4
    yield split_kv._combine, ATTENTION, one_copy | {"DP": 512, "BS": 8}, 4
    tiles = {"BM": 128, "BT": 64, "BN": 64, "STAGES": 2}
    yield paged_prefill._paged_prefill, ATTENTION, window | tiles, 8
    tiles = {"BM": 64, "BT": 8, "BN": 32, "STAGES": 2, "C": 512}
    yield paged_prefill._paged_prefill, ATTENTION, one_copy | tiles, 8
    yield flash_attn_prefill._gather_window, ATTENTION, window, 4


def layers() -> Iterator[Build]:
    weights = {
        "K": 5376, "BM": 16, "BN": 64, "BK": 128, "SPLITS": 1, "PREFETCH": 0, "TMA": True,
        "STAGES": 5, "PDL": True, "GATED": False,
    }  # fmt: skip
    yield linear_few_rows._linear_few_rows, LAYER, weights, 4
    yield linear_few_rows._linear_few_rows, LAYER, weights | {"GATED": True, "STAGES": 4}, 4
    yield (
        linear_few_rows._linear_few_rows,
        LAYER | {"w": B},
        weights | {"TMA": False, "PREFETCH": 1024},
        4,
    )
    yield linear_few_rows._linear_few_rows, LAYER | {"out": F}, weights | {"BM": 64}, 4
    norms = {"N": 5376, "BLOCK": 8192, "PARTS": 1, "HAS_POST": True, "HAS_NEXT": True}
    yield rms_norm._add_norm, LAYER, norms | {"HAS_Y": True, "PDL": True}, 16
    heads = {"HQ": 32, "BH": 4, "PARTS": 1, "PDL": True}
    window = {"HK": 16, "HEADS": 64, "D": 256, "HALF": 128, "PAIRS": 128, "ONE_COPY": False}
    yield rotary_embedding._norm_rope_and_cache, LAYER, heads | window, 4
    one_copy = {"HK": 4, "HEADS": 36, "D": 512, "HALF": 256, "PAIRS": 64, "ONE_COPY": True}
    folded = {"q_weight": F, "k_weight": F}
    yield rotary_embedding._norm_rope_and_cache, LAYER | folded, heads | one_copy, 4
    row = {"N": 5376, "BLOCK": 8192, "ZBLOCK": 1024, "PDL": True}
    yield token_embedding._embed_rms_norm, LAYER, row, 16
    yield token_embedding._choose, LAYER, {"BLOCK": 1024}, 4
    yield gated_gelu._gated_gelu, LAYER, {"N": 21504, "BLOCK": 2048}, 8


def builds() -> Iterator[Build]:
    """All kernels, and again with 1 in the place of each whole number, where it is a constant."""
    for kernel, types, constants, warps in (*sampling(), *attention(), *layers()):
        yield kernel, types, constants, warps
        ones = {
            param.name: 1
            for param in kernel.params
            if types.get(param.name) == "i32"
            and param.name not in constants
            and not param.do_not_specialize
        }
        if ones:
            yield kernel, types, constants | ones, warps


def main() -> int:
    failed = 0
    for kernel, types, constants, warps in builds():
        names = kernel.arg_names
        source = ASTSource(
            kernel,
            {name: "constexpr" if name in constants else types[name] for name in names},
            {(names.index(name),): constants[name] for name in names if name in constants},
        )
        try:
            triton.compile(source, target=HOPPER, options={"num_warps": warps})
            print("built", kernel.fn.__name__)
        except Exception as error:
            failed += 1
            print("FAILED", kernel.fn.__name__, error)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
