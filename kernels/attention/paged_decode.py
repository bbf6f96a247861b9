"""Decode attention: a few query rows per sequence attend to a long paged cache.

Caches are ``[pages, page_size, kv_heads, head_dim]``, in bfloat16 in production and in any float
type in tests. There is one for keys and one for values, or one copy for both (``one_copy_keys``).

Splits start at absolute multiples of a number of tokens, tiles at multiples of the tile. Hence the
result for a sequence depends neither on other sequences nor on its pages. It does not depend on
the rows verified beside it either, except if these cross the length from which splits are long.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..argument_checks import require, require_tensor, require_tile
from ..triton_launch import multiprocessor_count, next_power_of_2, pdl_options, shared_memory_bytes
from .attention_shapes import PagedInputs, PagedShape
from .fp8_pages import KVPages
from .hopper import hopper_decode, hopper_one_copy
from .one_copy_blocks import one_copy_block_width
from .one_copy_keys import OneCopy
from .split_kv import combine_splits, decode_workspace_size
from .triton_kernels.paged_decode_kernel import paged_decode_kernel

MAX_WHOLE_WINDOW = 2048  # tokens; a wider one takes too long for one program

SHARED_SLACK = 4352
"""Bytes of shared memory that a program of the Triton kernel needs besides its tiles, at most."""

MANY_QUERIES = 1 << 14
"""Elements of a program's queries from which four warps would spill most of their registers."""

MAX_HOPPER_HEAD_DIM = 128
"""Widest heads whose decode attention runs on the CUDA C++ kernel for Hopper.

At 256 it makes a step of Gemma-4-31B 0.7 % faster than Triton's (18.70 against 18.83 ms at 8k), but
adds up the keys of several query rows in another order than those of one, so that a step with
drafts would round differently.
"""


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """Launch configuration of ``paged_decode``.

    Attributes:
        tile: keys that the Triton kernel takes per step, a power of two from 16; one copy allows
            at most 32.
        split_tokens: tokens of a split, a multiple of the tile; 0 for no splits.
        warps: warps of a program of the Triton kernel.
        stages: stages of the pipeline in which the Triton kernel loads keys and values.
        programs_per_sm: programs of the Triton kernel launched per multiprocessor if it splits.
        use_hopper: run the CUDA C++ kernel for Hopper if it supports the call (see
            ``hopper_decode`` and ``hopper_one_copy``). It takes only the two split sizes from this
            configuration.
        short_split_tokens: tokens of a split of short sequences (see ``split_kv``), a multiple of
            the tile; 0 to split all sequences alike.
    """

    tile: int = 64
    split_tokens: int = 0
    warps: int = 4
    stages: int = 3
    programs_per_sm: int = 1
    use_hopper: bool = False
    short_split_tokens: int = 0


def default_decode_config(window: int, one_copy: bool = False, head_dim: int = 128) -> DecodeConfig:
    """Return the configuration that was fastest on an H100 (docs/notebook/kernels_attention.md).

    Layers with a window of up to ``MAX_WHOLE_WINDOW`` tokens are not split, others in splits of 512
    tokens. One-copy layers have splits of 1,024, which are 9 to 11 % faster than 512 from 7k tokens
    on. At 1k tokens they are a third slower than shorter ones, so that short sequences have splits
    of 256.

    Args:
        window: tokens that a row sees; 0 for all.
        one_copy: True for a layer that caches one vector for key and value.
        head_dim: width of the heads.
    """
    narrow = head_dim <= MAX_HOPPER_HEAD_DIM
    if 0 < window <= MAX_WHOLE_WINDOW:
        return DecodeConfig(tile=32, stages=8, use_hopper=narrow)
    if one_copy:
        return DecodeConfig(
            tile=32,
            split_tokens=1024,
            short_split_tokens=256,
            stages=5,
            programs_per_sm=2,
            use_hopper=True,
        )
    return DecodeConfig(
        tile=32,
        split_tokens=512,
        short_split_tokens=256,
        stages=5,
        programs_per_sm=2,
        use_hopper=narrow,
    )


def paged_decode(
    q: torch.Tensor,
    key_cache: KVPages,
    value_cache: KVPages | None,
    page_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    q_len: int = 1,
    window: int = 0,
    scale: float = 1.0,
    first_pos: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    softcap: float = 0.0,
    tree: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    config: DecodeConfig | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute the attention of the newest ``q_len`` tokens of each sequence to its paged cache.

    Args:
        q: [sequences * q_len, heads, head_dim], rotated. For one-copy layers it is normalized and
            folded with the key weight (see ``fold_key_weight``), but *not* rotated.
        key_cache: [pages, page_size, kv_heads, head_dim]; for one copy the cached vectors.
        value_cache: the same shape; ``None`` for one copy.
        page_table: int32 [sequences, max_pages]. Entry j of a row is the page that holds positions
            from ``first_pos[s] + j * page_size``.
        seq_lens: int32 [sequences], tokens in the cache, those of the query rows included. If it
            is 0 there is no sequence, and the output is 0.
        out: tensor of q's shape and dtype that receives the result.
        q_len: query rows of each sequence.
        window: keys that a row sees, its own included; 0 for all.
        scale: factor of the scores.
        first_pos: int32 [sequences], position of the first entry of the page table, a multiple of
            the page size; ``None`` for 0. Without a window it must be 0.
        sinks: [heads], logits that take weight but add no value.
        one_copy: what rebuilds keys from the cached vectors; ``None`` for a cache of keys.
        softcap: scores become ``softcap * tanh(scores / softcap)``; 0 for no cap.
        tree: int32 [sequences * q_len, 2]; ``None`` if each query row sees all keys up to its own.
            First the position of each row: its key lies at the place of its row, ``seq_lens[s] -
            q_len`` places for the first, but belongs to this position. Then, as bits, which rows
            of its sequence the row sees. All see the keys before the first row, within the window.
        workspace: float32, ``decode_workspace_size(...)`` elements for page tables of this width.
            It is needed if the configuration splits.
        config: launch configuration; ``None`` for ``default_decode_config``.
        pdl: launch the kernels with programmatic dependent launch.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape, a dtype or an option does not fit the others.
    """
    config = config or default_decode_config(window, one_copy is not None, q.shape[-1])
    inputs = PagedInputs(
        q, key_cache, value_cache, page_table, seq_lens, window, scale, first_pos, sinks,
        one_copy, softcap, tree,
    )  # fmt: skip
    shape = _check(inputs, out, q_len, config)
    if not config.split_tokens:
        _launch(inputs, shape, q_len, config, pdl, out, None, None)
        return out
    return _decode_in_splits(inputs, shape, q_len, config, pdl, out, workspace)


def _check(inputs: PagedInputs, out: torch.Tensor, q_len: int, config: DecodeConfig) -> PagedShape:
    """Return the sizes of the call; raise ValueError if something does not fit."""
    shape = inputs.check(out)
    require(
        shape.rows == shape.sequences * q_len,
        f"q has {shape.rows} rows, which does not fit {shape.sequences} rows of page_table "
        f"with {q_len} query rows each.",
    )
    if inputs.tree is not None:
        require_tensor("tree", inputs.tree, torch.int32, 2)
        require(
            inputs.tree.shape == (shape.rows, 2) and q_len < 32,
            f"tree has shape {tuple(inputs.tree.shape)}; it must have two columns for each of the "
            f"{shape.rows} rows, and a sequence may have at most 31.",
        )
    tile = config.tile
    require_tile("tile", tile)
    # Triton 3.6 miscompiles 64 one-copy keys for Hopper: rotated keys in registers feed wgmma.
    require(
        inputs.one_copy is None or tile <= 32,
        f"tile is {tile}; one-copy layers need a tile of at most 32 keys.",
    )
    require(
        config.split_tokens % tile == 0 and config.short_split_tokens % tile == 0,
        f"split_tokens is {config.split_tokens} and short_split_tokens is "
        f"{config.short_split_tokens}; both must be multiples of the tile, {tile}.",
    )
    return shape


def _decode_in_splits(
    inputs: PagedInputs,
    shape: PagedShape,
    q_len: int,
    config: DecodeConfig,
    pdl: bool,
    out: torch.Tensor,
    workspace: torch.Tensor | None,
) -> torch.Tensor:
    """Attend to each split of the keys by itself, then combine the results; return ``out``."""
    sums, stats = _split_results(inputs, shape, q_len, config, workspace)
    _launch(inputs, shape, q_len, config, pdl, out, sums, stats)
    combine_splits(
        sums, stats, inputs.seq_lens, inputs.sinks, out,
        kv_heads=shape.kv_heads, q_len=q_len, window=inputs.window,
        split_tokens=config.split_tokens, short_split_tokens=config.short_split_tokens, pdl=pdl,
    )  # fmt: skip
    return out


def _split_results(
    inputs: PagedInputs,
    shape: PagedShape,
    q_len: int,
    config: DecodeConfig,
    workspace: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the parts of the workspace for the splits' sums and for their statistics."""
    need = decode_workspace_size(
        shape.sequences, q_len, shape.heads, shape.head_dim,
        inputs.page_table.shape[1] * shape.page_size, config.split_tokens,
        config.short_split_tokens, inputs.window,
    )  # fmt: skip
    have = 0 if workspace is None else workspace.numel()
    require(have >= need, f"workspace holds {have} float32 elements; {need} are needed.")
    assert workspace is not None
    return workspace, workspace[need // (shape.head_dim + 2) * shape.head_dim :]


def _launch(
    inputs: PagedInputs,
    shape: PagedShape,
    q_len: int,
    config: DecodeConfig,
    pdl: bool,
    out: torch.Tensor,
    sums: torch.Tensor | None,
    stats: torch.Tensor | None,
) -> None:
    """Launch the kernel that fits; it writes ``out``, or ``sums`` and ``stats`` if it splits."""
    splits: dict[str, Any] = {
        "q_len": q_len, "split_tokens": config.split_tokens,
        "short_split_tokens": config.short_split_tokens, "pdl": pdl,
    }  # fmt: skip
    launched = False
    use_hopper = config.use_hopper and not inputs.is_fp8
    if use_hopper and inputs.one_copy is None:
        launched = hopper_decode.launch_decode(shape, inputs, out, sums, stats, **splits)
    elif use_hopper and sums is not None and stats is not None:
        launched = hopper_one_copy.launch_decode(shape, inputs, sums, stats, **splits)
    if not launched:
        _launch_triton(inputs, shape, q_len, config, pdl, out, sums, stats)


def fit_decode_config(
    config: DecodeConfig, rows: int, block_dim: int, itemsize: int, shared_bytes: int
) -> DecodeConfig:
    """Return a configuration with fewer stages, or smaller tiles, if it needs too much memory.

    Programs of many wide rows get more warps, so that their registers suffice. The memory is an
    upper bound of what Triton takes in layers with two copies (see ``test_triton_builds.py``).

    Args:
        config: the configuration.
        rows: query rows of a program.
        block_dim: width of a head, padded to a power of two.
        itemsize: bytes of an element of the cache.
        shared_bytes: shared memory that a program can have.
    """
    if rows * block_dim >= MANY_QUERIES:
        config = replace(config, warps=max(8, config.warps))
    for tile in sorted({config.tile, min(16, config.tile)}, reverse=True):
        for stages in range(config.stages, 0, -1):
            buffers = max(2, stages - 1) if stages > 1 else 1.5
            if (rows + buffers * tile) * block_dim * itemsize + SHARED_SLACK <= shared_bytes:
                return replace(config, tile=tile, stages=stages)
    return replace(config, tile=min(16, config.tile), stages=1)


def _launch_triton(
    inputs: PagedInputs,
    shape: PagedShape,
    q_len: int,
    config: DecodeConfig,
    pdl: bool,
    out: torch.Tensor,
    sums: torch.Tensor | None,
    stats: torch.Tensor | None,
) -> None:
    """Launch the Triton kernel; it writes ``out``, or ``sums`` and ``stats`` if it splits."""
    head_dim, one_copy = shape.head_dim, inputs.one_copy
    pairs = one_copy.cos.shape[1] if one_copy else 0
    block_dim = (
        one_copy_block_width(head_dim, pairs) if one_copy else max(16, next_power_of_2(head_dim))
    )
    rows = max(16, next_power_of_2(q_len * shape.group))
    if not one_copy:
        device, itemsize = inputs.q.device, inputs.q.element_size()
        config = fit_decode_config(config, rows, block_dim, itemsize, shared_memory_bytes(device))
    programs = shape.sequences * shape.kv_heads
    if config.split_tokens:
        programs = multiprocessor_count(inputs.q.device) * config.programs_per_sm
    unused = inputs.seq_lens  # stands for tensors that this variant of the kernel does not read
    paged_decode_kernel[(programs,)](
        inputs.q, *inputs.cache_pointers(), inputs.page_table, inputs.seq_lens,
        unused if inputs.first_pos is None else inputs.first_pos,
        unused if inputs.tree is None else inputs.tree,
        one_copy.cos if one_copy else unused, one_copy.sin if one_copy else unused,
        one_copy.key_weight if one_copy else unused,
        unused if inputs.sinks is None else inputs.sinks, out, unused if sums is None else sums,
        unused if stats is None else stats, inputs.scale, inputs.softcap or 1.0,
        shape.sequences, inputs.page_table.stride(0),
        HEADS=shape.heads, KV_HEADS=shape.kv_heads, HEAD_DIM=head_dim, BLOCK_DIM=block_dim,
        NUM_BLOCKS=-(-head_dim // block_dim), PAIRS=pairs, PAGE_SIZE=shape.page_size,
        TILE=config.tile, Q_LEN=q_len, BLOCK_ROWS=rows,
        WINDOW=inputs.window, SPLIT=config.split_tokens, SHORT_SPLIT=config.short_split_tokens,
        PADDED_SEQUENCES=max(16, next_power_of_2(shape.sequences)), ONE_COPY=one_copy is not None,
        HAS_FIRST=inputs.first_pos is not None, HAS_SINKS=inputs.sinks is not None,
        HAS_CAP=inputs.softcap != 0, FP8=inputs.is_fp8, TREE=inputs.tree is not None,
        STAGES=config.stages, num_warps=config.warps, **pdl_options(pdl),
    )  # fmt: skip
