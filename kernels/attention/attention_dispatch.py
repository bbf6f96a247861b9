"""Attention of a mixed step by the Triton kernels: single tokens first, then chunks."""

from dataclasses import dataclass
from typing import Any

import torch

from .flash_attn.flash_attn_prefill import AttentionSpec, flash_prefill
from .one_copy_keys import OneCopy
from .paged_decode import paged_decode
from .paged_prefill import paged_prefill

NO_SLOT = -1  # what has this slot is written nowhere


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """What the layers of one page group need to know of a step of T rows.

    The first ``decodes * q_len`` rows belong to ``decodes`` sequences of ``q_len`` tokens each; one
    of length 0 stands for no sequence. The rows after them belong to ``chunks`` in order. Rows
    after the last chunk's belong to nobody.

    Args:
        slots: int32 [T], where each row's key and value go; ``NO_SLOT`` for none.
        page_table: int32 [decodes + chunks, P]; entry j of a row is the page that holds positions from
            ``first_pos + j * page_size``.
        first_pos, seq_lens: int32 [decodes + chunks], position of the page_table's first entry, and tokens
            in the cache with the step's own.
        query_starts: int32 [chunks + 1], first row of each chunk, counted from the first chunk's.
        flash: the kinds of layers whose chunks flash-attn computes (see ``trial``).
    """

    slot_mapping: torch.Tensor
    page_table: torch.Tensor
    first_pos: torch.Tensor
    seq_lens: torch.Tensor
    query_starts: torch.Tensor
    num_decodes: int
    q_len: int = 1
    flash_attn_specs: frozenset[AttentionSpec] = frozenset()


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor | None,
    batch: PagedBatch,
    out: torch.Tensor,
    *,
    window: int | None,
    scale: float = 1.0,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    workspace: torch.Tensor | None = None,
) -> None:
    """Attention of a step's rows: its single tokens, then its chunks.

    Args:
        query, out: [T, heads, head_dim]; rows of nobody are left as they are, or become 0.
        window: ``None`` or 0 for all tokens.
        The rest as in ``paged_decode``.

    Raises:
        ValueError: a shape, dtype or option that does not fit.
    """
    s, n = batch.num_decodes, batch.num_decodes * batch.q_len
    shared: dict[str, Any] = {
        "window": window or 0, "scale": scale, "sinks": sinks, "one_copy": one_copy,
    }  # fmt: skip
    if n:
        paged_decode(
            query[:n], keys, values, batch.page_table[:s], batch.seq_lens[:s], out[:n], q_len=batch.q_len,
            first_pos=batch.first_pos[:s], workspace=workspace, pdl=True, **shared,
        )  # fmt: skip
    if batch.query_starts.shape[0] == 1:
        return
    chunks = (batch.page_table[s:], batch.query_starts, batch.seq_lens[s:], out[n:])
    first_pos = batch.first_pos[s:]
    kv_heads, head_dim = keys.shape[2:]
    kind = AttentionSpec(query.shape[1], kv_heads, head_dim, window or 0)
    if kind in batch.flash_attn_specs and sinks is None and values is not None:
        flash_prefill(
            query[n:], keys, values, *chunks, window=kind.window, scale=scale, first_pos=first_pos
        )
    else:
        paged_prefill(query[n:], keys, values, *chunks, first_pos=first_pos, **shared)
