"""Table of what fits a GPU: a checkpoint as it is stored, in FP8 and in 4 bits, and the context."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from eightfold.common.terminal_table import Column, format_table
from eightfold.engine.loading.model_folder import read_json
from eightfold.engine.loading.safetensors_headers import StoredTensor, read_stored_tensors
from eightfold.engine.quantization.quantization_config import read_quantization

from .machine_detection import Machine
from .machine_sizing import (
    ATTEMPTS,
    BFLOAT16_BYTES,
    FLOAT_TYPES,
    GPU_OVERHEAD,
    GPU_SHARE,
    MIN_TOKENS,
    CheckpointSize,
    read_checkpoint_size,
)

GIB = 1 << 30
GPU_SIZES = (24, 48, 80)
INT4_GROUP = 32
"""Columns that share a scale in the 4-bit releases that the table assumes."""

LINEAR_WEIGHT = re.compile(
    r"(^|\.)layers\.\d+\.(.*(_proj|_linear|gate|dense|fc\d?|\.w[123])\.weight"
    r"|(.*\.)?experts\.(gate_up|down)_proj)$"
)
NOT_ROUNDED = re.compile(r"router|(mlp|moe)\.gate\.|vision|visual|audio")
"""Of weights that the first expression finds: routers and other modalities stay."""

COLUMNS = (
    Column("GPU", right=True),
    Column("weights"),
    Column("GB", right=True),
    Column("tokens in all", right=True),
    Column(f"for each of {ATTEMPTS}", right=True),
    Column("with --kv fp8", right=True),
)


@dataclass(frozen=True)
class WeightsKind:
    """One way to store a checkpoint's weights.

    Attributes:
        name: what it is, for the table.
        size: sizes of the checkpoint with them.
    """

    name: str
    size: CheckpointSize


def kinds_of_weights(folder: Path) -> list[WeightsKind]:
    """Return a checkpoint as it is stored, and in fewer bits if it is not quantized.

    Raises:
        ModelError: the engine cannot run the checkpoint.
        OSError: a file is missing.
    """
    size = read_checkpoint_size(folder)
    quantization = read_quantization(read_json(folder / "config.json"))
    if quantization is not None:
        return [WeightsKind(f"as stored: {quantization}", size)]
    stored = read_stored_tensors(folder)
    names = {tensor.name for tensor in stored}
    # Experts with biases, as gpt-oss has them, stay as they are.
    linear = [each for each in stored if is_rounded(each) and f"{each.name}_bias" not in names]
    elements = sum(prod(tensor.shape) for tensor in linear)
    outputs = sum(prod(tensor.shape[:-1]) for tensor in linear)
    rest = size.weight_bytes - sum(tensor.nbytes for tensor in linear)
    kinds = [WeightsKind("as stored", size)]
    if linear:
        fp8 = elements + 4 * outputs
        int4 = elements // 2 + 2 * elements // INT4_GROUP
        for name, rounded in (
            ("FP8, rounded while loading (--weights fp8)", fp8),
            ("4 bits", int4),
        ):
            smaller = replace(size, weight_bytes=rest + rounded, quantized_bytes=rounded)
            kinds.append(WeightsKind(name, smaller))
    return kinds


def is_rounded(tensor: StoredTensor) -> bool:
    """Return whether a stored tensor is the weight of linear layers that may be quantized."""
    stacked = not tensor.name.endswith(".weight")
    return (
        len(tensor.shape) == (3 if stacked else 2)
        and tensor.dtype in FLOAT_TYPES
        and LINEAR_WEIGHT.search(tensor.name) is not None
        and NOT_ROUNDED.search(tensor.name) is None
    )


def room_for_tokens(gpu: int, size: CheckpointSize, kv_fp8: bool = False) -> int:
    """Return how many tokens of all attempts fit a GPU with our kernels; 0 if the weights do not.

    Args:
        gpu: bytes of the GPU's memory.
        size: sizes of the checkpoint.
        kv_fp8: whether full attention's keys and values take half of their size. Their scales, one
            in a thousand bytes or less, are not counted.
    """
    room = int(gpu * GPU_SHARE) - GPU_OVERHEAD - size.loaded_bytes(1)
    room -= ATTEMPTS * size.window_bytes_per_sequence
    each = size.kv_bytes_per_token // (BFLOAT16_BYTES if kv_fp8 else 1)
    return max(0, room // max(each, 1))


def memory_table(folder: Path, sizes: tuple[int, ...] = GPU_SIZES) -> str:
    """Return the table for GPUs of given sizes, in GiB.

    Raises:
        ModelError: the engine cannot run the checkpoint.
        OSError: a file is missing.
    """
    kinds = kinds_of_weights(folder)
    rows = []
    for gib in sizes:
        machine = Machine(gib * GIB, 1, 0)
        for kind in kinds:
            room = room_for_tokens(machine.gpu, kind.size)
            each = min(room // ATTEMPTS, kind.size.max_positions)
            more = room_for_tokens(machine.gpu, kind.size, kv_fp8=True) // ATTEMPTS
            more = min(more, kind.size.max_positions)
            rows.append(
                (
                    f"{gib} GiB",
                    kind.name,
                    f"{kind.size.loaded_bytes(1) / 1e9:.1f}",
                    f"{room:,}" if room else "does not fit",
                    f"{each:,}" if each >= MIN_TOKENS else "too few",
                    f"{more:,}" if more >= MIN_TOKENS else "too few",
                )
            )
    return format_table(COLUMNS, rows)
