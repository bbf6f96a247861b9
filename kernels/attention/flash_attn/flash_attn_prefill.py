"""Prefill attention through flash-attn 4 (see ``flash4_prefill.py``), or flash-attn 2.

What follows is about flash-attn 2. Decode steps stay with ``paged_decode``: flash-attn chooses its
splits of the keys by the number of sequences, so that results would depend on the batch. It
supports neither sinks nor one-copy caches, its head dimensions end at 256, and it reads only pages
of multiples of 256 tokens. From smaller pages the keys of a sliding-window layer are gathered
first: a window and the chunk for each sequence. For a full-attention layer that would be the whole
context, so that such a layer is left to ``paged_prefill``.

This was written from flash-attn's published interface and is tested against a stand-in, because no
build of flash-attn existed for the machines on which it was developed.
"""

import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ...argument_checks import require
from ...triton_launch import next_power_of_2
from ..attention_shapes import PagedInputs
from .flash4_prefill import flash4_installed, flash4_prefill, flash4_supports

MAX_HEAD_DIM = 256
PAGE_MULTIPLE = 256  # tokens
# Bytes of gathered keys and values of a step; more memory is better kept for the cache.
MAX_GATHER_BYTES = 256 << 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Kind of attention layer, as far as the choice of a prefill kernel depends on it.

    Attributes:
        heads: query heads.
        kv_heads: heads of keys and values.
        head_dim: width of a head.
        window: tokens that a row sees; 0 for all.
        sinks: True if the layer has sinks.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    sinks: bool = False

    def __str__(self) -> str:
        seen = f"a window of {self.window}" if self.window else "all tokens"
        sinks = " with sinks" if self.sinks else ""
        return f"{self.heads} heads ({self.kv_heads} of keys) of {self.head_dim} over {seen}{sinks}"


@dataclass(frozen=True, slots=True)
class PrefillLimits:
    """Size of the largest prefill step, and layout of the cache.

    Attributes:
        max_rows: query rows of a step.
        max_sequences: rows of a step's page table.
        page_size: tokens of a page.
        dtype: type of keys and values.
        device: device that holds the cache.
    """

    max_rows: int
    max_sequences: int
    page_size: int
    dtype: torch.dtype
    device: torch.device


@triton.jit(do_not_specialize=["sequences"])
def gather_windows_kernel(
    k, v, page_table, key_starts, seq_lens, first_pos, keys, values, sequences, page_table_stride,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK_ROWS: tl.constexpr, PADDED_SEQUENCES: tl.constexpr,
    HAS_FIRST: tl.constexpr,
):  # fmt: skip
    """Copy one head of BLOCK_ROWS gathered rows per program.

    Gathered row r of sequence s holds position ``seq_lens[s] - key_starts[s + 1] + r``.
    """
    head = tl.program_id(1)
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    live = row < tl.load(key_starts + sequences)
    seqs = tl.arange(0, PADDED_SEQUENCES)
    ends = tl.load(key_starts + seqs + 1, mask=seqs < sequences, other=2**31 - 1)
    seq = tl.sum((ends[None, :] <= row[:, None]).to(tl.int32), 1)
    length = tl.load(seq_lens + seq, mask=live, other=0)
    pos = length - tl.load(key_starts + seq + 1, mask=live, other=0) + row
    offset = pos
    if HAS_FIRST:
        offset = pos - tl.load(first_pos + seq, mask=live, other=0)
    entry = page_table + seq.to(tl.int64) * page_table_stride + offset // PAGE_SIZE
    page = tl.load(entry, mask=live, other=0)
    slot = page.to(tl.int64) * PAGE_SIZE + pos % PAGE_SIZE
    dim = tl.arange(0, BLOCK_DIM)
    source = (slot * KV_HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    target = (row.to(tl.int64) * KV_HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    copied = live[:, None] & (dim < HEAD_DIM)[None, :]
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
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute what ``paged_prefill`` computes, from the same arguments.

    Rows of ``out`` after the last chunk become 0. From pages of multiples of 256 tokens flash-attn
    also reads the keys before the window in the window's first page; these must be finite.

    Raises:
        ValueError: a shape or dtype does not fit. With flash-attn 2: a layer without a window has
            pages of other sizes, or there are sinks.
    """
    inputs = PagedInputs(
        q, key_cache, value_cache, page_table, seq_lens, window, scale, first_pos, sinks
    )
    if uses_flash4(q.device):
        return flash4_prefill(inputs, query_starts, out)
    from flash_attn import flash_attn_varlen_func

    require(sinks is None, "flash-attn 2 has no sinks.")
    shape = inputs.check(out)
    paged = shape.page_size % PAGE_MULTIPLE == 0
    require(
        paged or window > 0,
        f"The pages have {shape.page_size} tokens; without a window they must have a multiple "
        f"of {PAGE_MULTIPLE}.",
    )
    counts = query_starts.diff()
    if paged:
        held = seq_lens if first_pos is None else seq_lens - first_pos
        longest = page_table.shape[1] * shape.page_size
    else:
        held = torch.minimum(seq_lens, counts + (window - 1))
        longest = max_gathered_rows(shape.rows, shape.sequences, window)
    key_starts = F.pad((held * (counts > 0)).cumsum(0, dtype=torch.int32), (1, 0))
    keys, values = key_cache, value_cache
    if not paged:
        keys, values = _gather_windows(inputs, key_starts, longest)
    attended = flash_attn_varlen_func(
        q, keys, values, cu_seqlens_q=query_starts, cu_seqlens_k=key_starts,
        # Upper bounds, because the exact values are on the device. A max_seqlen_q of 1 would mean
        # one row for every sequence.
        max_seqlen_q=max(2, shape.rows), max_seqlen_k=longest,
        softmax_scale=scale, causal=True, window_size=(window - 1, 0) if window else (-1, -1),
        block_table=page_table if paged else None,
    )  # fmt: skip
    mine = torch.arange(shape.rows, device=q.device) < query_starts[-1]
    return torch.where(mine[:, None, None], attended, attended.new_zeros(()), out=out)


def _gather_windows(
    inputs: PagedInputs, key_starts: torch.Tensor, rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values [rows, kv_heads, head_dim] of each sequence's window and chunk."""
    _, page_size, kv_heads, head_dim = inputs.key_cache.shape
    sequences = len(inputs.seq_lens)
    keys, values = (inputs.q.new_empty(rows, kv_heads, head_dim) for _ in range(2))
    block_rows = 32
    gather_windows_kernel[(-(-rows // block_rows), kv_heads)](
        inputs.key_cache, inputs.value_cache, inputs.page_table, key_starts, inputs.seq_lens,
        inputs.seq_lens if inputs.first_pos is None else inputs.first_pos, keys, values, sequences,
        inputs.page_table.stride(0), KV_HEADS=kv_heads, HEAD_DIM=head_dim,
        BLOCK_DIM=next_power_of_2(head_dim), PAGE_SIZE=page_size, BLOCK_ROWS=block_rows,
        PADDED_SEQUENCES=max(16, next_power_of_2(sequences)),
        HAS_FIRST=inputs.first_pos is not None,
    )  # fmt: skip
    return keys, values


def max_gathered_rows(rows: int, sequences: int, window: int) -> int:
    """Return the most keys that chunks of ``rows`` tokens in all can see through a window."""
    return min(sequences, rows) * (window - 1) + rows


def unsupported_reason(spec: AttentionSpec, limits: PrefillLimits) -> str | None:
    """Return why flash-attn cannot serve such layers, as a clause; ``None`` if it can."""
    if limits.dtype not in (torch.bfloat16, torch.float16):
        return f"flash-attn does not take {limits.dtype}"
    flash4 = uses_flash4(limits.device)
    if spec.sinks and not (flash4 and limits.dtype == torch.bfloat16):
        return "flash-attn 2 has no sinks, and flash-attn 4 has them in bfloat16 only"
    if spec.head_dim > MAX_HEAD_DIM or spec.head_dim % 8:
        return f"flash-attn takes head dimensions that are multiples of 8 up to {MAX_HEAD_DIM}"
    if flash4 or limits.page_size % PAGE_MULTIPLE == 0:
        return None
    if not spec.window:
        return (
            f"flash-attn reads pages of multiples of {PAGE_MULTIPLE} tokens, not {limits.page_size}"
        )
    row_bytes = 2 * spec.kv_heads * spec.head_dim * limits.dtype.itemsize
    needed = max_gathered_rows(limits.max_rows, limits.max_sequences, spec.window) * row_bytes
    if needed > MAX_GATHER_BYTES:
        return f"gathering the windows would take {needed >> 20} MiB"
    return None


def uses_flash4(device: torch.device) -> bool:
    """Return whether calls go to flash-attn 4, which is preferred on GPUs whose pages it reads."""
    return flash4_supports(device) and flash4_installed()


def is_installed() -> bool:
    """Return whether flash-attn 2 can be imported; log a warning if it is installed but broken.

    flash-attn 4 lies in the same namespace, without a module of that name.
    """
    try:
        import flash_attn

        if getattr(flash_attn, "__file__", "") is None:
            return False
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "flash_attn":
            logger.warning("flash-attn is not used because it cannot be imported: %s", error)
        return False
    except (ImportError, OSError) as error:  # built for another torch or CUDA
        logger.warning("flash-attn is not used because it cannot be imported: %s", error)
        return False
    return str(flash_attn.__version__).startswith("2.")


def device_supported(device: torch.device) -> bool:
    """Return whether flash-attn 2 has kernels for the device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
