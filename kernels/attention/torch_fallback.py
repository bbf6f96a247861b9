"""Paged attention in plain PyTorch, for the CPU and for GPUs on which the kernels do not run.

Caches are ``[pages, page_size, kv_heads, head_dim]``. A *slot* is a flat index into the first two
dimensions. Slot 0 lies in the null page, to which padding writes and from which it reads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .fp8_pages import Fp8Pages, KVPages, write_fp8_pages_in_torch

# Keys of decode rows gathered at once, padding included. It bounds the memory of a step.
MAX_GATHERED_KEYS = 1 << 16


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Query rows ``[begin, end)`` of one sequence, and the keys that they may see.

    Attributes:
        begin: first row of the step that belongs to the chunk.
        end: the row after its last.
        slots: int64 [L], slots of the keys in order of position.
        mask: bool [end - begin, L], True for visible keys; ``None`` if the chunk begins its
            sequence, so that row i sees the first i + 1 keys.
    """

    begin: int
    end: int
    slots: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class TorchAttentionBatch:
    """A step of T tokens, as the layers of one page group see it.

    Attributes:
        write_slots: int64 [T], slots to which each token's key and value are written.
        decode_rows: int64 [B], rows of the sequences of a single token; ``None`` if there are
            none.
        decode_slots: int64 [B, L], slots of the keys that each of these rows sees, padded with 0.
        decode_mask: bool [B, 1, 1, L], True for visible keys; ``None`` if nothing is padded.
        chunks: the other sequences.
    """

    write_slots: torch.Tensor
    decode_rows: torch.Tensor | None
    decode_slots: torch.Tensor | None
    decode_mask: torch.Tensor | None
    chunks: tuple[PrefillChunk, ...]


def write_kv_cache(
    keys: torch.Tensor,
    values: torch.Tensor,
    key_cache: KVPages,
    value_cache: KVPages,
    slots: torch.Tensor,
) -> None:
    """Write keys and values [T, kv_heads, head_dim] to their slots [T] of the caches."""
    for cache, new in ((key_cache, keys), (value_cache, values)):
        if isinstance(cache, Fp8Pages):
            write_fp8_pages_in_torch(cache, new, slots)
        else:
            cache.flatten(0, 1).index_copy_(0, slots, new.to(cache.dtype))


def torch_paged_attention(
    queries: torch.Tensor,
    key_cache: KVPages,
    value_cache: KVPages,
    batch: TorchAttentionBatch,
    scale: float,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention of every query to the keys that the batch lets it see.

    Args:
        queries: [T, heads, head_dim]; ``heads`` is a multiple of the caches' ``kv_heads``.
        key_cache: [pages, page_size, kv_heads, head_dim].
        value_cache: [pages, page_size, kv_heads, value_dim].
        batch: the step's sequences.
        scale: factor of the scores.
        softcap: scores become ``softcap * tanh(scores / softcap)``; ``None`` for no cap.
        sinks: [heads], logits that take weight but add no value (gpt-oss).

    Returns:
        [T, heads, value_dim] in the queries' dtype.
    """
    heads, kv_heads = queries.shape[1], key_cache.shape[2]
    group = heads // kv_heads
    out = queries.new_empty(queries.shape[0], heads, value_cache.shape[3])
    if sinks is not None:
        sinks = sinks.view(kv_heads, group)
    if batch.decode_rows is not None:
        rows = batch.decode_rows
        # The query heads of a group are the rows of an attention: [B, kv_heads, group, head_dim].
        query = (queries[rows] if batch.chunks else queries).unflatten(1, (kv_heads, group))
        attended = _decode(query, key_cache, value_cache, batch, scale, softcap, sinks)
        if not batch.chunks:
            return attended
        out[rows] = attended
    for chunk in batch.chunks:
        query = queries[chunk.begin : chunk.end].unflatten(1, (kv_heads, group))
        query = query.permute(1, 2, 0, 3)  # [kv_heads, group, rows, head_dim]
        key, value = (  # [kv_heads, group, L, head_dim]
            _gather(cache, chunk.slots, query)
            .transpose(0, 1)
            .unsqueeze(1)
            .expand(-1, group, -1, -1)
            for cache in (key_cache, value_cache)
        )
        sink = None if sinks is None else sinks[:, :, None, None]
        attended = _attention(
            query, key, value, chunk.mask, scale, softcap, sink, causal=chunk.mask is None
        )
        out[chunk.begin : chunk.end] = attended.permute(2, 0, 1, 3).flatten(1, 2)
    return out


def _decode(
    query: torch.Tensor,
    key_cache: KVPages,
    value_cache: KVPages,
    batch: TorchAttentionBatch,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Map [B, kv_heads, group, head_dim] to [B, heads, value_dim], a few sequences at a time."""
    slots, mask = batch.decode_slots, batch.decode_mask
    assert slots is not None
    sink = None if sinks is None else sinks[None, :, :, None]
    count = max(1, MAX_GATHERED_KEYS // slots.shape[1])
    parts = []
    for begin in range(0, len(query), count):
        part = slice(begin, begin + count)
        key = _gather(key_cache, slots[part], query).transpose(1, 2)
        value = _gather(value_cache, slots[part], query).transpose(1, 2)
        visible = None if mask is None else mask[part]
        parts.append(_attention(query[part], key, value, visible, scale, softcap, sink))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1, 2)


def _gather(cache: KVPages, slots: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Return what slots [...] hold, in the query's type: [..., kv_heads, head_dim].

    ``index_select`` copies whole rows, three times as fast on a CPU as indexing.
    """
    if isinstance(cache, Fp8Pages):
        return cache.gather(slots, query.dtype)
    return cache.flatten(0, 1).index_select(0, slots.flatten()).unflatten(0, slots.shape)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    sink: torch.Tensor | None,
    causal: bool = False,
) -> torch.Tensor:
    """Map queries [..., rows, head_dim] and keys [..., L, head_dim] to [..., rows, value_dim]."""
    if softcap is None and sink is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=scale
        )
    if causal:
        rows, keys = query.shape[-2], key.shape[-2]
        mask = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril_()
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sink is not None:
        column = sink.float().expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[-2]]
    return weights.to(value.dtype) @ value
