"""Triton kernel that writes keys or values to pages in FP8 (E4M3); ``fp8_pages`` launches it."""

import triton
import triton.language as tl

from ...quantized.fp8_codes import fp8_codes, fp8_values


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
