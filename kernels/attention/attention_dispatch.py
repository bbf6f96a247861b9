"""Attention of a mixed step: decode rows first, then prefill chunks, each by a kernel that fits."""

from dataclasses import dataclass
from typing import Any

import torch

from .flash_attn.flash_attn_prefill import AttentionSpec, flash_prefill
from .fp8_pages import KVPages
from .one_copy_keys import OneCopy
from .paged_decode import paged_decode
from .paged_prefill import paged_prefill


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """A step of T rows, as the layers of one page group see it.

    The first ``num_decodes * q_len`` rows belong to ``num_decodes`` sequences of ``q_len`` tokens
    each. The rows after them belong to the prefill chunks, in order. Rows after the last chunk are
    padding, and a sequence of length 0 is padding, too.

    Attributes:
        slot_mapping: int32 [T], slot of the cache to which each row's key and value are written;
            ``NO_SLOT`` (``attention_shapes``) for none.
        page_table: int32 [num_decodes + chunks, P]. Entry j of a row is the page that holds
            positions from ``first_pos + j * page_size``.
        first_pos: int32 [num_decodes + chunks], position of the first entry of the page table.
        seq_lens: int32 [num_decodes + chunks], tokens in the cache, those of the step included.
        query_starts: int32 [chunks + 1], first row of each chunk and the end of the last, counted
            from the first chunk's first row.
        num_decodes: sequences whose rows come first.
        q_len: rows of each of them: more than 1 if drafted tokens are verified.
        tree: positions and visible rows of drafts that are trees, as in ``paged_decode``.
        flash_attn_specs: kinds of layers whose chunks flash-attn computes (see
            ``autotune_prefill``).
    """

    slot_mapping: torch.Tensor
    page_table: torch.Tensor
    first_pos: torch.Tensor
    seq_lens: torch.Tensor
    query_starts: torch.Tensor
    num_decodes: int
    q_len: int = 1
    tree: torch.Tensor | None = None
    flash_attn_specs: frozenset[AttentionSpec] = frozenset()


def attend(
    query: torch.Tensor,
    keys: KVPages,
    values: KVPages | None,
    batch: PagedBatch,
    out: torch.Tensor,
    *,
    window: int | None,
    scale: float = 1.0,
    sinks: torch.Tensor | None = None,
    one_copy: OneCopy | None = None,
    softcap: float = 0.0,
    workspace: torch.Tensor | None = None,
) -> None:
    """Compute the attention of a step's decode rows, then that of its prefill chunks.

    Args:
        query: [T, heads, head_dim]; see ``paged_decode`` for one-copy layers.
        keys: cache of keys, or of the one copy, as in ``paged_decode``.
        values: cache of values; ``None`` for one copy.
        batch: the step's rows and their page tables.
        out: [T, heads, head_dim], receives the result. Padding rows are left as they are or
            become 0.
        window: keys that a row sees, its own included; ``None`` or 0 for all.
        scale: factor of the scores.
        sinks: [heads], logits that take weight but add no value.
        one_copy: what rebuilds keys from the one copy.
        softcap: cap of the scores, as in ``paged_decode``; 0 for none.
        workspace: float32 memory, as in ``paged_decode``.

    Raises:
        ValueError: a shape, a dtype or an option does not fit the others.
    """
    decodes, rows = batch.num_decodes, batch.num_decodes * batch.q_len
    shared: dict[str, Any] = {
        "window": window or 0, "scale": scale, "sinks": sinks, "one_copy": one_copy,
        "softcap": softcap,
    }  # fmt: skip
    if rows:
        paged_decode(
            query[:rows], keys, values, batch.page_table[:decodes], batch.seq_lens[:decodes],
            out[:rows], q_len=batch.q_len, first_pos=batch.first_pos[:decodes],
            tree=batch.tree, workspace=workspace, pdl=True, **shared,
        )  # fmt: skip
    if batch.query_starts.shape[0] == 1:
        return
    query, first_pos = query[rows:], batch.first_pos[decodes:]
    chunks = (
        batch.page_table[decodes:], batch.query_starts, batch.seq_lens[decodes:], out[rows:],
    )  # fmt: skip
    kv_heads, head_dim = keys.shape[2:]
    spec = AttentionSpec(query.shape[1], kv_heads, head_dim, window or 0, sinks is not None)
    flash = spec in batch.flash_attn_specs and not softcap
    if flash and isinstance(keys, torch.Tensor) and isinstance(values, torch.Tensor):
        flash_prefill(
            query, keys, values, *chunks, window=spec.window, scale=scale, first_pos=first_pos,
            sinks=sinks,
        )  # fmt: skip
    else:
        paged_prefill(query, keys, values, *chunks, first_pos=first_pos, **shared)
