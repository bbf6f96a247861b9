"""Compile every Triton kernel for Hopper in Gemma-4-31B's shapes. No GPU is needed.

The interpreter accepts code that the compiler refuses. Run this in a process of its own, without
``TRITON_INTERPRET``. It prints one line per kernel and exits with 1 if any does not compile.
"""

import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eightfold.kernels.attention.flash_attn.flash_attn_prefill import gather_windows_kernel
from eightfold.kernels.attention.triton_kernels.paged_decode_kernel import paged_decode_kernel
from eightfold.kernels.attention.triton_kernels.paged_prefill_kernel import paged_prefill_kernel
from eightfold.kernels.attention.triton_kernels.split_combine_kernel import split_combine_kernel
from eightfold.kernels.layers import (
    expert_norms,
    gated_activation,
    linear_few_rows,
    per_layer_inputs,
    rms_norm,
    rotary_embedding,
    token_embedding,
)
from eightfold.kernels.sampling import (
    candidate_sampler,
    row_entropy,
    threshold_search,
    triton_sampler,
)

HOPPER = GPUTarget("cuda", 90, 32)
F, I, L, B = "*fp32", "*i32", "*i64", "*bf16"  # noqa: E741
INTEGERS = dict.fromkeys(
    ("vocab_size", "rows", "step", "sequences", "page_table_stride", "M", "N"), "i32"
) | dict.fromkeys(("softcap", "scale", "eps"), "fp32")
SAMPLER = INTEGERS | {
    "logits": F, "temperature": F, "maxima": F, "part_maxima": F, "masses": F, "counts": I,
    "top_k": L, "top_p": F, "min_p": F, "bounds": F, "values": F, "tokens": I, "seeds": L,
    "positions": L, "chosen": I, "limits": F, "best": F, "best_token": I, "out": L, "setting": L,
    "states": F, "all_sums": F,
}  # fmt: skip
ATTENTION = INTEGERS | {
    "q": B, "k": B, "v": B, "page_table": I, "seq_lens": I, "first_pos": I, "query_starts": I,
    "cos": F, "sin": F, "key_weight": B, "sinks": B, "out": B, "partial_sums": F,
    "partial_stats": F, "key_starts": I, "keys": B, "values": B,
}  # fmt: skip
LAYER = INTEGERS | {
    "y": B, "residual": B, "post_weight": B, "next_weight": B, "out": B, "qkv": B, "q_weight": B,
    "k_weight": B, "cos": F, "sin": F, "positions": I, "slots": I, "q_out": B, "key_cache": B,
    "value_cache": B, "tokens": I, "source": I, "sampled": L, "filled": I, "embedding": B,
    "zero": I, "weight": B, "zeros": "i32", "gate": B, "gate_stride": "i32", "up_stride": "i32",
    "bias": B, "x": B, "w_pointer": B,
    "w": "tensordesc<bf16[64,128]>",
}  # fmt: skip

Build = tuple[Any, dict[str, str], dict[str, Any], int]


def sampling() -> Iterator[Build]:
    blocks = {"NUM_BLOCKS": 64, "PADDED_BLOCKS": 64, "BLOCK": 4096, "PDL": True}
    candidates = blocks | {
        "PADDED_PARTS": 256, "PARTS": 4, "MAX_CANDIDATES": candidate_sampler.MAX_CANDIDATES,
        "PARTS_PER_CANDIDATE": candidate_sampler.PARTS_PER_CANDIDATE,
    }  # fmt: skip
    yield candidate_sampler.block_maxima_kernel, SAMPLER, candidates, 8
    yield candidate_sampler.candidate_bound_kernel, SAMPLER, candidates, 16
    yield candidate_sampler.collect_candidates_kernel, SAMPLER, candidates, 8
    yield candidate_sampler.draw_candidates_kernel, SAMPLER, candidates, 1
    for mass in (False, True):
        for last in (False, True):
            passes = {"LANES": 1024, "WAYS": 16, "RANGE": 64.0, "LAST": last, "MASS": mass}
            setting = {"setting": F if mass else L}
            yield threshold_search.search_pass_kernel, SAMPLER | setting, blocks | passes, 8
    yield triton_sampler.draw_blocks_kernel, SAMPLER, blocks, 8
    yield triton_sampler.pick_token_kernel, SAMPLER, blocks, 1
    own = {"moments": F, "out": F}
    entropy = {"NUM_BLOCKS": 32, "PADDED_BLOCKS": 32, "BLOCK": 8192, "PDL": True}
    yield row_entropy.block_entropy_kernel, SAMPLER | own, entropy, 8
    yield row_entropy.merge_entropy_kernel, SAMPLER | own, entropy, 1


def attention() -> Iterator[Build]:
    shared = {
        "HEADS": 32, "PAGE_SIZE": 64, "PADDED_SEQUENCES": 16, "HAS_SINKS": False, "PDL": True,
        "Q_LEN": 1,
    }  # fmt: skip
    window = shared | {
        "KV_HEADS": 16, "HEAD_DIM": 256, "BLOCK_DIM": 256, "PAIRS": 0, "WINDOW": 1024, "SPLIT": 0,
        "SHORT_SPLIT": 0, "ONE_COPY": False, "HAS_FIRST": True,
    }  # fmt: skip
    one_copy = shared | {
        "KV_HEADS": 4, "HEAD_DIM": 512, "PAIRS": 64, "WINDOW": 0, "SPLIT": 1024,
        "SHORT_SPLIT": 256, "ONE_COPY": True, "HAS_FIRST": False,
    }  # fmt: skip
    tiles = {"BLOCK_DIM": 256, "NUM_BLOCKS": 1, "BLOCK_ROWS": 16, "TILE": 32, "STAGES": 8}
    yield paged_decode_kernel, ATTENTION, window | tiles, 4
    tiles |= {"BLOCK_DIM": 64, "NUM_BLOCKS": 8, "STAGES": 5}
    yield paged_decode_kernel, ATTENTION, one_copy | tiles, 4
    yield split_combine_kernel, ATTENTION, one_copy | {"BLOCK_DIM": 512, "BLOCK_SPLITS": 8}, 4
    tiles = {"BLOCK_ROWS": 128, "BLOCK_TOKENS": 64, "TILE": 64, "BLOCK_PAIRS": 16, "STAGES": 2}
    yield paged_prefill_kernel, ATTENTION, window | tiles, 8
    tiles |= {"BLOCK_DIM": 512, "BLOCK_ROWS": 64, "BLOCK_TOKENS": 8, "TILE": 32, "BLOCK_PAIRS": 64}
    yield paged_prefill_kernel, ATTENTION, one_copy | tiles, 8
    yield gather_windows_kernel, ATTENTION, window | {"BLOCK_ROWS": 32}, 4


def layers() -> Iterator[Build]:
    weights = {
        "K": 5376, "BM": 16, "BN": 64, "BK": 128, "SPLITS": 1, "PREFETCH": 0, "TMA": True,
        "STAGES": 5, "PDL": True, "GATED": False, "SILU": False,
        "HAS_BIAS": True,
    }  # fmt: skip
    yield linear_few_rows.linear_few_rows_kernel, LAYER, weights, 4
    yield (
        linear_few_rows.linear_few_rows_kernel,
        LAYER,
        weights | {"GATED": True, "SILU": True, "STAGES": 4},
        4,
    )
    yield (
        linear_few_rows.linear_few_rows_kernel,
        LAYER | {"w": B},
        weights | {"TMA": False, "PREFETCH": 1024},
        4,
    )
    yield linear_few_rows.linear_few_rows_kernel, LAYER | {"out": F}, weights | {"BM": 64}, 4
    norms = {
        "N": 5376,
        "BLOCK": 8192,
        "PARTS": 1,
        "HAS_POST": True,
        "HAS_NEXT": True,
        "HAS_BIAS": True,
    }
    yield rms_norm.add_rms_norm_kernel, LAYER, norms | {"HAS_Y": True, "PDL": True}, 16
    heads = {
        "HEADS": 32, "BLOCK_HEADS": 4, "PARTS": 1, "LAYOUT": 0, "HAS_BIAS": False, "NORM": 1,
        "VALUE_NORM": True, "WIDE": 1024, "PDL": True,
    }  # fmt: skip
    window = {
        "KV_HEADS": 16, "ALL_HEADS": 64, "HEAD_DIM": 256, "BLOCK_HALF": 128, "PAIRS": 128,
        "ONE_COPY": False,
    }  # fmt: skip
    yield rotary_embedding.norm_rope_and_cache_kernel, LAYER, heads | window, 4
    for variant in (
        {"NORM": 0, "LAYOUT": 1, "PAIRS": 96, "HAS_BIAS": True, "VALUE_NORM": False},
        {"NORM": 2, "LAYOUT": 2, "VALUE_NORM": False},
    ):
        yield rotary_embedding.norm_rope_and_cache_kernel, LAYER, heads | window | variant, 4
    one_copy = {
        "KV_HEADS": 4, "ALL_HEADS": 36, "HEAD_DIM": 512, "BLOCK_HALF": 256, "PAIRS": 64,
        "ONE_COPY": True,
    }  # fmt: skip
    folded = {"q_weight": F, "k_weight": F}
    yield rotary_embedding.norm_rope_and_cache_kernel, LAYER | folded, heads | one_copy, 4
    row = {"N": 5376, "BLOCK": 8192, "ZBLOCK": 1024, "HAS_NORM": True, "PDL": True}
    yield token_embedding.embed_rms_norm_kernel, LAYER, row, 16
    yield (
        per_layer_inputs.per_layer_inputs_kernel,
        LAYER | {"projected": B} | dict.fromkeys(("projection_scale", "embedding_scale"), "fp32"),
        {"WIDTH": 256, "LAYERS": 35, "BLOCK": 256, "PDL": True},
        2,
    )
    experts = dict.fromkeys(
        ("residual_out", "router_weight", "expert_weight", "expert_x", "router", "router_bias",
         "dense", "experts", "dense_weight"), B,
    ) | {"logits": F}  # fmt: skip
    router = {
        "N": 2816, "BLOCK": 4096, "EXPERTS": 128, "EACH": 4, "HAS_BIAS": True, "HAS_POST": True,
        "BRANCH": True, "HAS_ROUTER_BIAS": True, "PDL": True,
    }  # fmt: skip
    yield expert_norms.norms_and_router_kernel, LAYER | experts | {"router_weight": F}, router, 8
    branches = {"N": 2816, "BLOCK": 4096, "PARTS": 8, "PDL": True}
    yield expert_norms.join_branches_kernel, LAYER | experts | {"experts": F}, branches, 16
    yield token_embedding.fill_sampled_tokens_kernel, LAYER, {"BLOCK": 1024}, 4
    gated = {"N": 21504, "BLOCK": 2048, "SILU": False, "PDL": True}
    yield gated_activation.gated_activation_kernel, LAYER | {"up": B}, gated, 8


def builds() -> Iterator[Build]:
    """All kernels, and again with 1 for every integer: Triton makes an integer of 1 a constant."""
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
