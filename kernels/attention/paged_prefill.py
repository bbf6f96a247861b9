"""Prefill attention: chunks of several prompts attend to a paged cache that holds their keys."""

from dataclasses import dataclass

import torch

from ..argument_checks import require, require_tensor, require_tile
from ..triton_launch import next_power_of_2, shared_memory_bytes
from .attention_shapes import PagedInputs, PagedShape
from .fp8_pages import KVPages
from .hopper import hopper_one_copy, hopper_prefill
from .one_copy_keys import OneCopy
from .triton_kernels.paged_prefill_kernel import paged_prefill_kernel

LARGE_SHARED = 160 << 10  # bytes that the tiles of wide heads need
FP8_SHARED = 16 << 10  # bytes that they need in addition with pages in FP8


@dataclass(frozen=True, slots=True)
class PrefillConfig:
    """Launch configuration of ``paged_prefill``. The defaults suit heads of up to 128 dimensions.

    Attributes:
        query_rows: query rows of a program of the Triton kernel, tokens times the group of query
            heads that share a KV head; a power of two from 16.
        tile: keys that the Triton kernel takes per step, a power of two from 16.
        warps: warps of a program of the Triton kernel.
        stages: stages of the pipeline in which the Triton kernel loads keys and values.
        use_hopper: run the CUDA C++ kernel for Hopper if it supports the call (see
            ``hopper_one_copy`` and ``hopper_prefill``). It ignores the other fields.
    """

    query_rows: int = 128
    tile: int = 64
    warps: int = 8
    stages: int = 3
    use_hopper: bool = False


def default_prefill_config(
    head_dim: int, shared_bytes: int = LARGE_SHARED, itemsize: int = 2, fp8: bool = False
) -> PrefillConfig:
    """Return the configuration that was fastest on an H100 (docs/notebook/kernels_attention.md).

    Args:
        head_dim: width of a head.
        shared_bytes: shared memory that a program can have. With less than that of an A100 the
            tiles of wide heads are smaller.
        itemsize: bytes of an element. Heads in float32 get the tiles of heads twice as wide.
        fp8: whether the pages are in FP8, whose tiles take memory as codes and as floats.
    """
    if fp8:
        shared_bytes -= FP8_SHARED
    head_dim = head_dim * itemsize // 2
    if shared_bytes < LARGE_SHARED and head_dim > 256:
        return PrefillConfig(query_rows=32, tile=16, warps=4, stages=1)
    if shared_bytes < LARGE_SHARED and head_dim > 128:
        return PrefillConfig(query_rows=64, tile=32, warps=8, stages=2)
    if head_dim > 256:
        return PrefillConfig(query_rows=64, tile=32, warps=8, stages=2, use_hopper=True)
    return PrefillConfig(stages=2 if head_dim > 128 else 3, use_hopper=True)


def paged_prefill(
    q: torch.Tensor,
    key_cache: KVPages,
    value_cache: KVPages | None,
    page_table: torch.Tensor,
    query_starts: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    window: int = 0,
    scale: float = 1.0,
    first_pos: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    softcap: float = 0.0,
    config: PrefillConfig | None = None,
) -> torch.Tensor:
    """Compute the attention of prefill chunks to their paged caches, their own keys included.

    Args:
        q: [tokens, heads, head_dim], rotated, except for one-copy layers (see ``paged_decode``).
        key_cache: as in ``paged_decode``.
        value_cache: as in ``paged_decode``.
        page_table: as in ``paged_decode``.
        query_starts: int32 [sequences + 1], first row of q of each sequence, and the end of the
            last.
        seq_lens: int32 [sequences], tokens in the cache, those of the chunk included.
        out: tensor of q's shape and dtype that receives the result. Rows that belong to no
            sequence are left as they are.
        window: keys that a row sees, its own included; 0 for all.
        scale: factor of the scores.
        first_pos: as in ``paged_decode``.
        sinks: [heads], logits that take weight but add no value.
        one_copy: as in ``paged_decode``.
        softcap: as in ``paged_decode``.
        config: launch configuration; ``None`` for ``default_prefill_config``.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape, a dtype or an option does not fit the others.
    """
    inputs = PagedInputs(
        q, key_cache, value_cache, page_table, seq_lens, window, scale, first_pos, sinks, one_copy,
        softcap,
    )  # fmt: skip
    shape = _check(inputs, query_starts, out)
    config = config or default_prefill_config(
        shape.head_dim, shared_memory_bytes(q.device), q.element_size(), inputs.is_fp8
    )
    use_hopper = config.use_hopper and not inputs.is_fp8
    if not (use_hopper and _launch_hopper(inputs, shape, query_starts, out)):
        _launch_triton(inputs, shape, query_starts, config, out)
    return out


def _check(inputs: PagedInputs, query_starts: torch.Tensor, out: torch.Tensor) -> PagedShape:
    """Return the sizes of the call; raise ValueError if something does not fit."""
    shape = inputs.check(out)
    require_tensor("query_starts", query_starts, torch.int32, 1)
    require(
        len(query_starts) == shape.sequences + 1,
        f"query_starts has {len(query_starts)} entries; it must have one more than the "
        f"{shape.sequences} rows of page_table.",
    )
    return shape


def _launch_triton(
    inputs: PagedInputs,
    shape: PagedShape,
    query_starts: torch.Tensor,
    config: PrefillConfig,
    out: torch.Tensor,
) -> None:
    """Launch the Triton kernel; raise ValueError if the configuration does not fit."""
    require(
        config.query_rows >= shape.group,
        f"query_rows is {config.query_rows}; the {shape.group} query heads of a KV head need "
        "at least as many.",
    )
    require_tile("query_rows", config.query_rows)
    require_tile("tile", config.tile)
    head_dim, one_copy = shape.head_dim, inputs.one_copy
    block_tokens = config.query_rows // shape.group
    # The last tile of each sequence may be incomplete.
    grid = (-(-shape.rows // block_tokens) + shape.sequences, shape.kv_heads)
    unused = inputs.seq_lens  # stands for tensors that this variant of the kernel does not read
    pairs = one_copy.cos.shape[1] if one_copy else 0
    paged_prefill_kernel[grid](
        inputs.q, *inputs.cache_pointers(), inputs.page_table, query_starts, inputs.seq_lens,
        unused if inputs.first_pos is None else inputs.first_pos,
        one_copy.cos if one_copy else unused, one_copy.sin if one_copy else unused,
        one_copy.key_weight if one_copy else unused,
        unused if inputs.sinks is None else inputs.sinks, out, inputs.scale, inputs.softcap or 1.0,
        shape.sequences, inputs.page_table.stride(0),
        HEADS=shape.heads, KV_HEADS=shape.kv_heads, HEAD_DIM=head_dim,
        BLOCK_DIM=max(16, next_power_of_2(head_dim)), BLOCK_PAIRS=max(16, next_power_of_2(pairs)),
        PAIRS=pairs, PAGE_SIZE=shape.page_size, BLOCK_ROWS=config.query_rows,
        BLOCK_TOKENS=block_tokens, TILE=config.tile, WINDOW=inputs.window,
        PADDED_SEQUENCES=max(16, next_power_of_2(shape.sequences)), ONE_COPY=one_copy is not None,
        HAS_FIRST=inputs.first_pos is not None, HAS_SINKS=inputs.sinks is not None,
        HAS_CAP=inputs.softcap != 0, FP8=inputs.is_fp8, STAGES=config.stages,
        num_warps=config.warps,
    )  # fmt: skip


def _launch_hopper(
    inputs: PagedInputs, shape: PagedShape, query_starts: torch.Tensor, out: torch.Tensor
) -> bool:
    """Launch a CUDA C++ kernel for Hopper; return False if none supports the call."""
    if inputs.one_copy is not None:
        return hopper_one_copy.launch_prefill(shape, inputs, query_starts, out)
    return hopper_prefill.launch_prefill(shape, inputs, query_starts, out)
