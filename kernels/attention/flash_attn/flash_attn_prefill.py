"""Chunks' attention through flash-attn 2, where it is is_installed and measured to be faster.

Decode steps stay with ``decode``: flash-attn splits a sequence's keys by how many sequences there
are, so that results would depend on the batch. It knows no sinks and no one-copy caches, its head
dimensions end at 256, and it reads pages only of multiples of 256 tokens. From smaller pages a
sliding layer's keys are gathered first: a window and the chunk for each sequence. A full layer's
would be its whole context; it is left to ``prefill``.

Written from flash-attn's published interface and tested against a stand-in of it: no build of
flash-attn for the machines that this was developed on existed.
"""

import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ...triton_launch import next_power_of_2, require
from ..attention_shapes import paged_shape

MAX_HEAD_DIM, PAGE = 256, 256
MAX_GATHER_BYTES = (
    256 << 20
)  # keys and values of a step's chunks; more is better kept for the cache
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What tells one kind of attention layer from another; ``window`` 0 for none."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int

    def __str__(self) -> str:
        seen = f"a window of {self.window}" if self.window else "all tokens"
        return f"{self.heads} heads ({self.kv_heads} of keys) of {self.head_dim} over {seen}"


@dataclass(frozen=True, slots=True)
class PrefillLimits:
    """Most rows of a step, sequences in its tables, and what the cache is made of."""

    max_rows: int
    max_sequences: int
    page_size: int
    dtype: torch.dtype
    device: torch.device


@triton.jit(do_not_specialize=["sequences"])
def _gather_window(
    k, v, page_table, key_starts, seq_lens, first_pos, keys, values, sequences, page_table_stride,
    HK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, PS: tl.constexpr, BN: tl.constexpr,
    SP: tl.constexpr, HAS_FIRST: tl.constexpr,
):  # fmt: skip
    """A program copies one head of BN rows; row r of sequence s is its position seq_lens[s] -
    key_starts[s + 1] + r."""
    h = tl.program_id(1)
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    live = row < tl.load(key_starts + sequences)
    ss = tl.arange(0, SP)
    ends = tl.load(key_starts + ss + 1, mask=ss < sequences, other=2**31 - 1)
    s = tl.sum((ends[None, :] <= row[:, None]).to(tl.int32), 1)
    length = tl.load(seq_lens + s, mask=live, other=0)
    pos = length - tl.load(key_starts + s + 1, mask=live, other=0) + row
    entry = pos
    if HAS_FIRST:
        entry = pos - tl.load(first_pos + s, mask=live, other=0)
    page = tl.load(
        page_table + s.to(tl.int64) * page_table_stride + entry // PS, mask=live, other=0
    )
    slot = page.to(tl.int64) * PS + pos % PS
    c = tl.arange(0, C)
    source = (slot * HK + h)[:, None] * D + c[None, :]
    target = (row.to(tl.int64) * HK + h)[:, None] * D + c[None, :]
    copied = live[:, None] & (c < D)[None, :]
    tl.store(keys + target, tl.load(k + source, mask=copied), mask=copied)
    tl.store(values + target, tl.load(v + source, mask=copied), mask=copied)


def flash_prefill(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    page_table: torch.Tensor,
    query_starts: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    *,
    window: int = 0,
    scale: float = 1.0,
    first_pos: torch.Tensor | None = None,
) -> torch.Tensor:
    """What ``paged_prefill`` computes, with its arguments; rows after the last chunk become 0.

    In the keys of a window's first page before the window, which pages of multiples of 256 tokens
    let flash-attn read, there must be finite numbers.

    Raises:
        ValueError: a shape or dtype that does not fit, or a full layer in smaller pages.
    """
    from flash_attn import flash_attn_varlen_func

    shape = paged_shape(q, key_cache, value_cache, page_table, seq_lens, out, None)
    paged = shape.page_size % PAGE == 0
    require(paged or window > 0, f"pages of {shape.page_size} tokens hold a full layer's keys")
    counts = query_starts.diff()
    if paged:
        held = seq_lens if first_pos is None else seq_lens - first_pos
        keys, values, longest = key_cache, value_cache, page_table.shape[1] * shape.page_size
    else:
        held = torch.minimum(seq_lens, counts + (window - 1))
        longest = max_gathered_rows(shape.rows, shape.sequences, window)
    key_starts = F.pad((held * (counts > 0)).cumsum(0, dtype=torch.int32), (1, 0))
    if not paged:
        keys, values = (q.new_empty(longest, shape.kv_heads, shape.head_dim) for _ in range(2))
        block = 32
        _gather_window[(-(-longest // block), shape.kv_heads)](
            key_cache, value_cache, page_table, key_starts, seq_lens,
            seq_lens if first_pos is None else first_pos, keys, values, shape.sequences,
            page_table.stride(0), HK=shape.kv_heads, D=shape.head_dim, C=next_power_of_2(shape.head_dim),
            PS=shape.page_size, BN=block, SP=max(16, next_power_of_2(shape.sequences)),
            HAS_FIRST=first_pos is not None,
        )  # fmt: skip
    attended = flash_attn_varlen_func(
        q, keys, values, cu_seqlens_q=query_starts, cu_seqlens_k=key_starts,
        # Bounds: the true ones are on the device. One row would mean one row of every sequence.
        max_seqlen_q=max(2, shape.rows), max_seqlen_k=longest,
        softmax_scale=scale, causal=True, window_size=(window - 1, 0) if window else (-1, -1),
        block_table=page_table if paged else None,
    )  # fmt: skip
    mine = torch.arange(shape.rows, device=q.device) < query_starts[-1]
    return torch.where(mine[:, None, None], attended, attended.new_zeros(()), out=out)


def max_gathered_rows(rows: int, sequences: int, window: int) -> int:
    """Most keys that chunks of together ``rows`` tokens see through a window."""
    return min(sequences, rows) * (window - 1) + rows


def unsupported_reason(kind: AttentionSpec, limits: PrefillLimits) -> str | None:
    """Why flash-attn cannot serve such layers; ``None`` where it can."""
    if limits.dtype not in (torch.bfloat16, torch.float16):
        return f"flash-attn does not take {limits.dtype}"
    if kind.head_dim > MAX_HEAD_DIM or kind.head_dim % 8:
        return f"flash-attn takes head dimensions of multiples of 8 up to {MAX_HEAD_DIM}"
    if limits.page_size % PAGE == 0:
        return None
    if not kind.window:
        return f"flash-attn reads pages of multiples of {PAGE} tokens, not {limits.page_size}"
    row = 2 * kind.kv_heads * kind.head_dim * limits.dtype.itemsize
    needed = max_gathered_rows(limits.max_rows, limits.max_sequences, kind.window) * row
    if needed > MAX_GATHER_BYTES:
        return f"gathering the windows would take {needed >> 20} MiB"
    return None


def is_installed() -> bool:
    """Whether flash-attn 2 can be imported; one that is there and cannot be is warned of."""
    try:
        import flash_attn
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "flash_attn":
            logger.warning("flash-attn is not used: %s", error)
        return False
    except (ImportError, OSError) as error:  # built for another torch or CUDA
        logger.warning("flash-attn is not used: %s", error)
        return False
    return str(flash_attn.__version__).startswith("2.")


def device_supported(device: torch.device) -> bool:
    """Whether flash-attn 2 has kernels for the device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
