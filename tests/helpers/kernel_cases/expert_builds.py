"""Compile the experts' Triton kernels for GPUs from Ampere to Blackwell. No GPU is needed.

Run this in a process of its own, without ``TRITON_INTERPRET``. It prints one line per kernel, with
the bytes of shared memory and of stack, and exits with 1 if any exceeds its GPU's limits.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eightfold.kernels.experts import grouped_kernels, grouping, router
from eightfold.kernels.experts.stored import stored_kernel

SHARED_BYTES = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
F, I, B, U = "*fp32", "*i32", "*bf16", "*u8"  # noqa: E741
TYPES = {
    "x": B, "h": B, "order": I, "tiles": I, "w": B, "scales": B, "bias": B, "weights": F,
    "parts": F, "out": B, "ids": I, "counts": I, "logits": B, "expert_scale": F,
} | dict.fromkeys(("most", "rows", "rows_of_x", "pairs", "programs"), "i32")  # fmt: skip
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

Build = tuple[Any, dict[str, str], dict[str, Any], int]


def products(capability: int) -> Iterator[Build]:
    """The products with the largest tiles that ``tile_config`` uses there."""
    large = capability in (90, 100)
    tiles = {"BM": 128 if large else 64, "BN": 128 if large else 64, "STAGES": 3, "ASM": True}
    qwen = {
        "K": 2048, "N": 768, "ROW": 2048, "H_ROW": 768, "TOP_K": 8, "MXFP4": False, "BK": 64,
        "INTERLEAVED": False, "HAS_BIAS": False, "ACTIVATION": "silu",
    }  # fmt: skip
    yield grouped_kernels.gate_up_kernel, TYPES, qwen | tiles, 8 if large else 4
    gpt_oss = {
        "K": 2880, "N": 2880, "ROW": 2944, "TOP_K": 4, "MXFP4": True, "HAS_BIAS": True, "BK": 128,
    }  # fmt: skip
    tiles |= {"BM": 16, "BN": 64, "STAGES": 4}
    yield grouped_kernels.down_kernel, TYPES | {"w": I, "scales": U}, gpt_oss | tiles, 4


def stored(capability: int) -> Iterator[Build]:
    """The products of weights in FP8 and 4 bits with the tiles of ``stacked_config``.

    For Hopper these are all variants; for the others gate and up in FP8, and down in 4 bits.
    """
    large = capability in (90, 100)
    types = TYPES | {"codes": U, "zeros": U, "scales": F}
    fp8 = {"GROUP": 128, "SHARED_ROWS": 128, "FP8": True, "ZEROS": False, "BK": 128}
    int4 = {"GROUP": 128, "SHARED_ROWS": 1, "FP8": False, "ZEROS": True, "BK": 64}
    small_groups = int4 | {"GROUP": 32, "BK": 16}
    rows = fp8 | {"SHARED_ROWS": 1, "GROUP": 2048}
    for weights in (fp8, int4, small_groups, rows):
        for gated in (True, False):
            if capability != 90 and (weights, gated) not in ((fp8, True), (int4, False)):
                continue
            inputs, outputs = (2048, 768) if gated else (768, 2048)
            group = min(weights["GROUP"], inputs)
            shapes = weights | {
                "K": inputs, "N": outputs, "TOP_K": 8, "GATED": gated, "ACTIVATION": "silu",
                "GROUP": group, "GROUPS": inputs // group, "ASM": True,
            }  # fmt: skip
            own = types | {"out": B if gated else F}
            few, warps = {"BM": 16, "BN": 64, "STAGES": 4}, 4
            columns = (64 if gated else 128) if large else (32 if gated else 64)
            many = {"BM": 128 if large else 64, "BN": columns, "STAGES": 3}
            if large and weights["FP8"]:
                few, warps = {"BM": 16, "BN": 32, "STAGES": 4}, 2
            elif large:
                if group >= 128:
                    few, warps = {"BM": 16, "BN": 128, "STAGES": 3}, 8
                many = {"BM": 64, "BN": 128, "STAGES": 3}
            yield stored_kernel.stored_product_kernel, own, shapes | few, warps
            yield stored_kernel.stored_product_kernel, own, shapes | many, 8 if large else 4


def small() -> Iterator[Build]:
    experts = {"EXPERTS": 128, "LANES": 128, "TOP_K": 8, "PADDED_K": 8}
    options = {"OF_ALL": False, "HAS_SCALE": True}
    yield router.route_kernel, TYPES, experts | options, 1
    pairs = {"EXPERTS": 128, "EP": 128, "PAIRS": grouping.PAIRS, "LANES": grouping.LANES}
    yield grouping.count_pairs_kernel, TYPES, pairs, 8
    yield (
        grouping.place_pairs_kernel,
        TYPES,
        pairs | {"PROGRAMS": 16, "TILE_ROWS": 16, "ALONE": False},
        8,
    )
    rows = {"N": 2880, "TOP_K": 4, "BLOCK": 1024}
    yield grouped_kernels.add_parts_kernel, TYPES, rows, 4
    padded = {"K": 2880, "PADDED": 2944, "BLOCK": 4096, "PLANES": True}
    yield grouped_kernels.permute_columns_kernel, TYPES, padded, 8


def stack_bytes(cubin: bytes) -> int:
    """Stack of a kernel, which holds registers that were spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", usage)
    assert found, usage
    return int(found[1])


def main() -> int:
    failed = 0
    for capability, limit in SHARED_BYTES.items():
        builds = [
            *products(capability),
            *stored(capability),
            *(small() if capability in (80, 90) else ()),
        ]
        for kernel, types, constants, warps in builds:
            names = kernel.arg_names
            constants |= {"PDL": capability >= 90}
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
            target = GPUTarget("cuda", capability, 32)
            built = triton.compile(source, target=target, options={"num_warps": warps})
            shared, stack = built.metadata.shared, stack_bytes(built.asm["cubin"])
            failed += shared > limit or stack > 0
            print("built", capability, kernel.fn.__name__, shared, stack)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
