"""Inputs of a paged attention call, and their shapes, checked once for every kernel."""

from dataclasses import dataclass

import torch

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from .fp8_pages import Fp8Pages, KVPages
from .one_copy_keys import OneCopy

NO_SLOT = -1  # in a slot mapping: the row's key and value are not written


@dataclass(frozen=True, slots=True)
class PagedShape:
    """Sizes of a paged attention call.

    Attributes:
        rows: query rows of all sequences.
        heads: query heads.
        head_dim: width of a head.
        kv_heads: heads of the cache.
        page_size: tokens of a page, a power of two.
        sequences: rows of the page table.
    """

    rows: int
    heads: int
    head_dim: int
    kv_heads: int
    page_size: int
    sequences: int

    @property
    def group(self) -> int:
        """Number of query heads that share a KV head."""
        return self.heads // self.kv_heads


@dataclass(frozen=True, slots=True)
class PagedInputs:
    """Inputs of a paged attention call. ``paged_decode`` describes each field."""

    q: torch.Tensor
    key_cache: KVPages
    value_cache: KVPages | None
    page_table: torch.Tensor
    seq_lens: torch.Tensor
    window: int
    scale: float
    first_pos: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    one_copy: OneCopy | None = None
    softcap: float = 0.0
    tree: torch.Tensor | None = None

    def check(self, out: torch.Tensor) -> PagedShape:
        """Return the sizes of the call.

        Raises:
            ValueError: the tensors do not fit together, or do not fit ``out``.
        """
        q, cache = self.q, self.key_cache
        require_tensor("q", q, FLOAT_DTYPES, 3)
        _require_pages("key_cache", cache, q.dtype)
        require_tensor("page_table", self.page_table, torch.int32, 2)
        require_tensor("seq_lens", self.seq_lens, torch.int32, 1)
        require_tensor("out", out, q.dtype, 3)
        _, page_size, kv_heads, head_dim = cache.shape
        rows, heads, width = q.shape
        sequences = self.page_table.shape[0]
        require(
            q.shape == out.shape,
            f"out has shape {tuple(out.shape)}; it must have that of q, {tuple(q.shape)}.",
        )
        require(
            self.seq_lens.shape[0] == sequences,
            f"seq_lens has {self.seq_lens.shape[0]} entries; "
            f"it must have one for each of the {sequences} rows of page_table.",
        )
        require(
            width == head_dim and heads % kv_heads == 0,
            f"q has shape {tuple(q.shape)}, which does not fit a cache of {kv_heads} heads "
            f"of {head_dim} dimensions.",
        )
        require(
            page_size & (page_size - 1) == 0,
            f"The page size is {page_size}; it must be a power of two.",
        )
        self._check_values()
        return PagedShape(rows, heads, head_dim, kv_heads, page_size, sequences)

    @property
    def is_fp8(self) -> bool:
        """True if the cache is in FP8, which only the Triton kernels read."""
        return isinstance(self.key_cache, Fp8Pages)

    def cache_pointers(self) -> tuple[torch.Tensor, ...]:
        """Return what the Triton kernels take as keys, values, and the scales of both.

        Other tensors stand in for those that the kernels do not read.
        """
        caches = [self.key_cache, self.key_cache if self.value_cache is None else self.value_cache]
        codes = [each.codes if isinstance(each, Fp8Pages) else each for each in caches]
        scales = [each.scales if isinstance(each, Fp8Pages) else self.seq_lens for each in caches]
        return *codes, *scales

    def _check_values(self) -> None:
        """Check that values come either from a cache of their own or from the one copy."""
        if self.one_copy is None:
            require(
                self.value_cache is not None, "value_cache is missing; pass it, or pass one_copy."
            )
        if self.value_cache is not None:
            require(
                self.one_copy is None, "value_cache and one_copy were both given; pass one of them."
            )
            _require_pages("value_cache", self.value_cache, self.q.dtype)
            require(
                self.value_cache.shape == self.key_cache.shape
                and isinstance(self.value_cache, Fp8Pages) == self.is_fp8,
                "key_cache and value_cache differ in shape or in type; they must have the same.",
            )
        if self.one_copy is not None:
            require_tensor("cos", self.one_copy.cos, torch.float32, 2)
            require_tensor("sin", self.one_copy.sin, torch.float32, 2)


def _require_pages(name: str, pages: KVPages, dtype: torch.dtype) -> None:
    if isinstance(pages, Fp8Pages):
        require_tensor(f"{name}.codes", pages.codes, torch.uint8, 4)
        require_tensor(f"{name}.scales", pages.scales, torch.float32, 2)
        count, _, kv_heads, _ = pages.shape
        require(
            tuple(pages.scales.shape) == (count, kv_heads),
            f"{name}.scales has shape {tuple(pages.scales.shape)}; it must be {(count, kv_heads)}.",
        )
    else:
        require_tensor(name, pages, dtype, 4)
