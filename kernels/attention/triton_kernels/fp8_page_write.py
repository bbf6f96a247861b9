"""Triton kernel that writes keys or values to pages in FP8 (E4M3), as ``fp8_pages`` describes."""

import torch
import triton
import triton.language as tl

from ...argument_checks import require_tensor
from ...quantized.fp8_codes import fp8_codes, fp8_values
from ...triton_launch import next_power_of_2
from ..fp8_pages import Fp8Pages, KVPages, check_rows


@triton.jit
def _power_of_2(largest):
    """Return the smallest power of two under which a magnitude is at most FP8's."""
    bits = (tl.maximum(largest, 7.888609052210118e-31) / 448.0).to(tl.uint32, bitcast=True)
    return ((bits + 0x7FFFFF) & 0x7F800000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["rows"])
def write_fp8_pages_kernel(
    new, slots, codes, scales, rows,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The program of a page's first row writes all rows of the page, for one head."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    before = tl.load(slots + tl.maximum(row - 1, 0)).to(tl.int64)
    page = slot // PAGE_SIZE
    first = (row == 0) | (before < 0) | (before // PAGE_SIZE != page)
    if (slot >= 0) & first:
        token = tl.arange(0, BLOCK)
        dim = tl.arange(0, BLOCK_DIM)
        largest = tl.zeros([BLOCK], tl.float32)
        for t0 in range(0, PAGE_SIZE, BLOCK):
            at = row + t0 + token
            to = tl.load(slots + at, mask=at < rows, other=-1).to(tl.int64)
            live = ((to >= 0) & (to // PAGE_SIZE == page))[:, None] & (dim < HEAD_DIM)[None, :]
            source = (at.to(tl.int64) * KV_HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
            x = tl.load(new + source, mask=live, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, tl.max(tl.abs(x), 1))
        old = tl.load(scales + page * KV_HEADS + head)
        old = tl.where(slot % PAGE_SIZE == 0, 0.0, old)
        scale = tl.maximum(old, _power_of_2(tl.max(largest, 0)))
        if (scale > old) & (old > 0):
            for t0 in range(0, PAGE_SIZE, BLOCK):
                place = (page * PAGE_SIZE + t0 + token) * KV_HEADS + head
                live = (t0 + token < slot % PAGE_SIZE)[:, None] & (dim < HEAD_DIM)[None, :]
                there = codes + place[:, None] * HEAD_DIM + dim[None, :]
                moved = fp8_codes(fp8_values(tl.load(there, mask=live, other=0)) * (old / scale))
                tl.store(there, moved, mask=live)
        for t0 in range(0, PAGE_SIZE, BLOCK):
            at = row + t0 + token
            to = tl.load(slots + at, mask=at < rows, other=-1).to(tl.int64)
            live = ((to >= 0) & (to // PAGE_SIZE == page))[:, None] & (dim < HEAD_DIM)[None, :]
            source = (at.to(tl.int64) * KV_HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
            x = tl.load(new + source, mask=live, other=0.0).to(tl.float32)
            target = (to * KV_HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
            tl.store(codes + target, fp8_codes(x / scale), mask=live)
        tl.store(scales + page * KV_HEADS + head, scale)


def write_fp8_pages(pages: Fp8Pages, new: torch.Tensor, slots: torch.Tensor) -> None:
    """Do what ``write_fp8_pages_in_torch`` does, with the same result bit for bit.

    Args:
        pages: the cache, changed.
        new: floats [T, kv_heads, head_dim], contiguous.
        slots: int32 or int64 [T]; nothing is written to a negative slot. The rows of a page are
            consecutive, and their slots ascend.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    check_rows(pages, new, slots)
    for name, tensor in (("codes", pages.codes), ("scales", pages.scales), ("rows", new)):
        require_tensor(name, tensor, tensor.dtype, tensor.dim())
    require_tensor("slots", slots, (torch.int32, torch.int64), 1)
    _, page_size, kv_heads, head_dim = pages.shape
    rows = new.shape[0]
    if rows == 0:
        return
    write_fp8_pages_kernel[(rows, kv_heads)](
        new, slots, pages.codes, pages.scales, rows,
        KV_HEADS=kv_heads, HEAD_DIM=head_dim, BLOCK_DIM=next_power_of_2(head_dim),
        PAGE_SIZE=page_size, BLOCK=min(16, page_size), num_warps=4,
    )  # fmt: skip


class CacheTarget:
    """The memory that a kernel writes a step's keys and values to: the cache, or rows for FP8.

    Attributes:
        keys: memory for keys, in floats, as the kernel takes it; ``None`` without a cache.
        values: the same for values; ``None`` with one copy, too.
        slots: int32 or int64 [T], where the kernel writes each row.

    Args:
        keys: the cache.
        values: the cache; ``None`` with one copy.
        slots: int32 or int64 [T], slots of the cache.
        dtype: type of the rows that become FP8 later.
    """

    def __init__(
        self,
        keys: KVPages | None,
        values: KVPages | None,
        slots: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self._caches, self._slots = (keys, values), slots
        if isinstance(keys, Fp8Pages):
            self.slots = torch.arange(len(slots), device=slots.device, dtype=slots.dtype)
        else:
            self.slots = slots
        self.keys, self.values = (
            each.codes.new_empty(len(slots), 1, *each.shape[2:], dtype=dtype)
            if isinstance(each, Fp8Pages)
            else each
            for each in self._caches
        )

    def finish(self) -> None:
        """Write the waiting rows to their pages. Call this after the kernel."""
        for cache, rows in zip(self._caches, (self.keys, self.values), strict=True):
            if isinstance(cache, Fp8Pages) and rows is not None:
                write_fp8_pages(cache, rows.flatten(0, 1), self._slots)
