"""Shapes of a paged attention call, checked once for every kernel."""

from dataclasses import dataclass

import torch

from ..triton_launch import FLOAT_DTYPES, require, require_tensor
from .one_copy_keys import OneCopy


@dataclass(frozen=True, slots=True)
class PagedShape:
    """Sizes of queries [rows, heads, head_dim], caches [pages, page_size, kv_heads, head_dim] and
    a page_table of ``sequences`` rows."""

    rows: int
    heads: int
    head_dim: int
    kv_heads: int
    page_size: int
    sequences: int

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.heads // self.kv_heads


def paged_shape(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor | None,
    page_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    one_copy: OneCopy | None,
) -> PagedShape:
    """The sizes of a call, whose arguments are those of ``paged_decode``.

    Raises:
        ValueError: its tensors do not fit together.
    """
    require_tensor("q", q, FLOAT_DTYPES, 3)
    require_tensor("key_cache", key_cache, q.dtype, 4)
    require_tensor("page_table", page_table, torch.int32, 2)
    require_tensor("seq_lens", seq_lens, torch.int32, 1)
    require_tensor("out", out, q.dtype, 3)
    _, page_size, kv_heads, head_dim = key_cache.shape
    rows, heads, width = q.shape
    sequences = page_table.shape[0]
    require(q.shape == out.shape, f"out is {tuple(out.shape)}, q {tuple(q.shape)}")
    require(
        seq_lens.shape[0] == sequences, f"{sequences} page_table rows, {seq_lens.shape[0]} seq_lens"
    )
    require(
        width == head_dim and heads % kv_heads == 0,
        f"q {tuple(q.shape)} does not fit a cache of {kv_heads} heads of {head_dim}",
    )
    require(page_size & (page_size - 1) == 0, f"page_size {page_size} is not a power of two")
    if one_copy is None:
        require(value_cache is not None, "value_cache is missing; without it give one_copy")
    if value_cache is not None:
        require(one_copy is None, "one_copy and value_cache exclude each other")
        require_tensor("value_cache", value_cache, q.dtype, 4)
        require(value_cache.shape == key_cache.shape, "the caches differ in shape")
    if one_copy is not None:
        require_tensor("cos", one_copy.cos, torch.float32, 2)
        require_tensor("sin", one_copy.sin, torch.float32, 2)
    return PagedShape(rows, heads, head_dim, kv_heads, page_size, sequences)
