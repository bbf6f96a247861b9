"""Compile every Triton kernel in Gemma-4-31B's shapes for a GPU. No GPU is needed.

    python triton_builds.py CAPABILITY...    (80, 86, 89, 90, 100 or 120)

The interpreter accepts code that the compiler refuses. Run this in a process of its own, without
``TRITON_INTERPRET``. It prints one line per kernel, with the bytes of shared memory and of stack,
and exits with 1 if any does not compile or exceeds the GPU's limits, or if threads of the expansion
to memory exchange values. For Hopper all variants are compiled, for the others one of each kernel.
"""

import sys
from collections.abc import Iterator
from typing import Any

import triton
from expert_builds import SHARED_BYTES, stack_bytes
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eightfold.kernels.attention.flash_attn.flash_attn_prefill import gather_windows_kernel
from eightfold.kernels.attention.paged_decode import default_decode_config, fit_decode_config
from eightfold.kernels.attention.paged_prefill import default_prefill_config
from eightfold.kernels.attention.triton_kernels.fp8_page_write import write_fp8_pages_kernel
from eightfold.kernels.attention.triton_kernels.paged_decode_kernel import paged_decode_kernel
from eightfold.kernels.attention.triton_kernels.paged_prefill_kernel import paged_prefill_kernel
from eightfold.kernels.attention.triton_kernels.split_combine_kernel import split_combine_kernel
from eightfold.kernels.layers import (
    gated_activation,
    linear_few_rows,
    per_layer_inputs,
    rms_norm,
    rotary_embedding,
    token_embedding,
)
from eightfold.kernels.layers.beside_experts import expert_norms
from eightfold.kernels.module_ops import rotate_and_write, strided_rms_norm
from eightfold.kernels.quantized import triton_stored_rows
from eightfold.kernels.sampling import (
    candidate_sampler,
    row_entropy,
    threshold_search,
    triton_sampler,
)

# Bytes. Attention to one copy spills registers; on Hopper it only stands in for CUDA C++.
MAX_STACK = 1024
F, I, L, B, C = "*fp32", "*i32", "*i64", "*bf16", "*u8"  # noqa: E741
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
    "partial_stats": F, "key_starts": I, "keys": B, "values": B, "k_scales": F, "v_scales": F,
    "tree": I,
}  # fmt: skip
SINGLE = {name: F if kind == B else kind for name, kind in ATTENTION.items()}
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


def prefill_tiles(
    capability: int, head_dim: int, group: int, itemsize: int = 2, fp8: bool = False
) -> tuple[dict[str, int], int]:
    """Return the tiles that ``paged_prefill`` uses on a GPU, and its warps."""
    config = default_prefill_config(head_dim, SHARED_BYTES[capability], itemsize, fp8)
    return {
        "BLOCK_ROWS": config.query_rows, "BLOCK_TOKENS": config.query_rows // group,
        "TILE": config.tile, "STAGES": config.stages,
    }, config.warps  # fmt: skip


def attention(capability: int) -> Iterator[Build]:
    shared = {
        "HEADS": 32, "PAGE_SIZE": 64, "PADDED_SEQUENCES": 16, "HAS_SINKS": False, "HAS_CAP": False,
        "PDL": True, "Q_LEN": 1, "FP8": False, "TREE": False,
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
    narrow = {"KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_DIM": 128, "SPLIT": 512, "STAGES": 5}
    if capability == 90:
        yield paged_decode_kernel, ATTENTION, window | tiles | narrow | {"HAS_CAP": True}, 4
        drafts = {"Q_LEN": 8, "TREE": True}
        yield paged_decode_kernel, ATTENTION, window | tiles | drafts, 4
    yield split_combine_kernel, ATTENTION, one_copy | {"BLOCK_DIM": 512, "BLOCK_SPLITS": 8}, 4
    yield gather_windows_kernel, ATTENTION, window | {"BLOCK_ROWS": 32}, 4
    chunks, warps = prefill_tiles(capability, 256, 2)
    yield paged_prefill_kernel, ATTENTION, window | chunks | {"BLOCK_PAIRS": 16}, warps
    if capability in (89, 100):  # as 8.6 and 9.0
        return
    if capability == 86:  # tiles for little shared memory: many query rows, and float32
        for types, rows, size in ((ATTENTION, 64, 2), (SINGLE, 16, 4)):
            default = default_decode_config(1024, head_dim=256)
            config = fit_decode_config(default, rows, 256, size, SHARED_BYTES[capability])
            fitted = {"Q_LEN": rows // 2, "BLOCK_ROWS": rows, "TILE": config.tile}
            fitted |= {"BLOCK_DIM": 256, "NUM_BLOCKS": 1, "STAGES": config.stages}
            yield paged_decode_kernel, types, window | fitted, config.warps
        chunks, warps = prefill_tiles(capability, 256, 2, 4)
        yield paged_prefill_kernel, SINGLE, window | chunks | {"BLOCK_PAIRS": 16}, warps
    tiles |= {"BLOCK_DIM": 64, "NUM_BLOCKS": 8, "STAGES": 5}
    yield paged_decode_kernel, ATTENTION, one_copy | tiles, 4
    chunks, warps = prefill_tiles(capability, 512, 8)
    wide = {"BLOCK_DIM": 512, "BLOCK_PAIRS": 64}
    yield paged_prefill_kernel, ATTENTION, one_copy | chunks | wide, warps
    if capability in (80, 86, 90):
        chunks, warps = prefill_tiles(capability, 512, 8, fp8=True)
        fp8_types, full = ATTENTION | {"k": C, "v": C}, {"WINDOW": 0, "SPLIT": 512, "FP8": True}
        yield paged_decode_kernel, fp8_types, one_copy | tiles | full, 4
        yield paged_prefill_kernel, fp8_types, one_copy | chunks | wide | full, warps
        tiles |= {"BLOCK_DIM": 128, "NUM_BLOCKS": 1}
        yield paged_decode_kernel, fp8_types, window | tiles | narrow | full, 4
        chunks, warps = prefill_tiles(capability, 128, 4, fp8=True)
        narrow |= {"BLOCK_PAIRS": 16} | full
        yield paged_prefill_kernel, fp8_types, window | chunks | narrow, warps
        written = {"new": B, "slots": I, "codes": C, "scales": F, "rows": "i32"}
        page = {"KV_HEADS": 4, "HEAD_DIM": 512, "BLOCK_DIM": 512, "PAGE_SIZE": 64, "BLOCK": 16}
        yield write_fp8_pages_kernel, written, page, 4


def module_ops() -> Iterator[Build]:
    strides = dict.fromkeys(
        ("inner", "outer_stride", "inner_stride", "rotation_width", "q_token", "q_head", "k_token",
         "k_head", "v_token", "v_head"), "i32",
    )  # fmt: skip
    rows = {"N": 4096, "BLOCK": 4096, "ROWS": 1, "HAS_WEIGHT": True, "PDL": True}
    kinds = LAYER | strides | {"weight": F}
    yield strided_rms_norm.strided_rms_norm_kernel, kinds, rows, 8
    heads = {
        "HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_DIM": 128, "BLOCK_HEADS": 4,
        "PAIRS": 64, "INTERLEAVED": False, "STEP": 1, "PDL": True,
    }  # fmt: skip
    kinds = ATTENTION | strides | {"slots": I, "q_out": B, "key_cache": B, "value_cache": B}
    kinds |= {"cos": B, "sin": B}
    yield rotate_and_write.rotate_and_write_kernel, kinds, heads, 4
    yield rotate_and_write.rotate_and_write_kernel, kinds, heads | {"INTERLEAVED": True}, 4


def linear_layers() -> Iterator[Build]:
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


def norms_and_embeddings() -> Iterator[Build]:
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


def stored() -> Iterator[Build]:
    """Linear layers with weights in FP8 and 4 bits, with the largest tiles that are used."""
    types = dict.fromkeys(("codes", "zeros"), "*u8") | {"x": B, "scales": B, "bias": B, "out": B}
    types |= dict.fromkeys(("M", "N"), "i32")
    tiles = {"BM": 128, "BN": 64, "BK": 64, "GATED": True, "SILU": True, "HAS_BIAS": False}
    fp8 = {"K": 5376, "GROUP": 128, "GROUPS": 42, "SHARED_ROWS": 128, "FP8": True, "ZEROS": False}
    int4 = {"K": 5376, "GROUP": 32, "GROUPS": 168, "SHARED_ROWS": 1, "FP8": False, "ZEROS": True}
    for weights in (fp8, int4):
        yield triton_stored_rows.stored_rows_kernel, types, weights | tiles, 4
        block = triton_stored_rows.EXPANDED_BYTES * (1 if weights["FP8"] else 2)
        yield triton_stored_rows.expand_kernel, types, weights | {"BLOCK": block}, 4


def for_gpu(build: Build, capability: int) -> Build:
    """Return a build without what a GPU lacks, as the launchers leave it out."""
    kernel, types, constants, warps = build
    constants = dict(constants)
    if kernel is linear_few_rows.linear_few_rows_kernel:
        stage = constants["BN"] * (2 if constants["GATED"] else 1) + constants["BM"]
        most = (SHARED_BYTES[capability] - linear_few_rows.RESERVED_BYTES) // (
            stage * constants["BK"] * 2
        )
        constants["STAGES"] = min(constants["STAGES"], most)
        if capability < 90:
            constants |= {"TMA": False, "PREFETCH": 0}
            types = types | {"w": B}
    if capability < 90 and "PDL" in constants:
        constants["PDL"] = False
    return kernel, types, constants, warps


def builds(capability: int) -> Iterator[Build]:
    """Return what is compiled for a GPU.

    For Hopper these are all variants, and again with 1 for every integer, because Triton makes an
    integer of 1 a constant. For the others it is one variant of each kernel, and all of attention.
    """
    seen = set()
    attending = [*attention(capability)]
    layers = (*linear_layers(), *norms_and_embeddings())
    for build in (*sampling(), *attending, *layers, *module_ops(), *stored()):
        kernel, types, constants, warps = for_gpu(build, capability)
        if capability != 90 and kernel in seen and build not in attending:
            continue
        seen.add(kernel)
        yield kernel, types, constants, warps
        ones = {
            param.name: 1
            for param in kernel.params
            if types.get(param.name) == "i32"
            and param.name not in constants
            and not param.do_not_specialize
        }
        if ones and capability == 90:
            yield kernel, types, constants | ones, warps


def main(capability: int) -> int:
    failed = 0
    for kernel, types, constants, warps in builds(capability):
        names = kernel.arg_names
        source = ASTSource(
            kernel,
            {name: "constexpr" if name in constants else types[name] for name in names},
            {(names.index(name),): constants[name] for name in names if name in constants},
            {
                (index,): [["tt.divisibility", 16]]
                for index, name in enumerate(names)
                if name not in constants and types[name].startswith("*")
            },
        )
        try:
            target = GPUTarget("cuda", capability, 32)
            built = triton.compile(source, target=target, options={"num_warps": warps})
            shared, stack = built.metadata.shared, stack_bytes(built.asm["cubin"])
            most = 0 if kernel is triton_stored_rows.expand_kernel else SHARED_BYTES[capability]
            fits = shared <= most and stack <= MAX_STACK
            failed += not fits
            print("built" if fits else "FAILED", capability, kernel.fn.__name__, shared, stack)
        except Exception as error:
            failed += 1
            print("FAILED", capability, kernel.fn.__name__, error)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(max([main(int(capability)) for capability in sys.argv[1:]]))
