"""Pages in FP8: what is written, however it was divided, and attention that reads them."""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE

from eightfold.kernels.attention.fp8_pages import (
    FP8_MAX,
    Fp8Pages,
    scale_of,
    write_fp8_pages_in_torch,
)
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import paged_decode
from eightfold.kernels.attention.paged_prefill import paged_prefill
from eightfold.kernels.attention.triton_kernels.fp8_page_write import write_fp8_pages

WRITERS = [write_fp8_pages, write_fp8_pages_in_torch]


def empty_pages(count: int, size: int, heads: int, head_dim: int) -> Fp8Pages:
    codes = torch.zeros(count, size, heads, head_dim, dtype=torch.uint8, device=DEVICE)
    return Fp8Pages(codes, torch.ones(count, heads, device=DEVICE))


def slots_of(table: list[int], size: int, begin: int, end: int) -> torch.Tensor:
    slots = [table[p // size] * size + p % size for p in range(begin, end)]
    return torch.tensor(slots, dtype=torch.int32, device=DEVICE)


def filled(size: int, heads: int, head_dim: int, tokens: int, seed: int) -> Fp8Pages:
    """Return pages of one sequence on pages 1, 2, ... whose rows grow in size."""
    pages = empty_pages(2 + tokens // size, size, heads, head_dim)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tokens, heads, head_dim, generator=generator)
    slots = slots_of([*range(1, 2 + tokens // size)], size, 0, tokens)
    write_fp8_pages_in_torch(pages, rows.to(DEVICE, DTYPE), slots)
    return pages


@pytest.mark.parametrize(("size", "head_dim"), [(16, 32), (64, 24)])
def test_kernel_and_torch_write_the_same_in_any_steps(size: int, head_dim: int) -> None:
    generator, total, heads = torch.Generator().manual_seed(1), 2 * size + 5, 3
    growing = torch.linspace(0.1, 9, total)[:, None, None]
    rows = (torch.randn(total, heads, head_dim, generator=generator) * growing).to(DEVICE, DTYPE)
    table, whole = [3, 1, 4], empty_pages(6, size, heads, head_dim)
    write_fp8_pages(whole, rows, slots_of(table, size, 0, total))
    for steps in ([total], [1, 1, 5, size, total], [size - 1, 2, total]):
        found = [empty_pages(6, size, heads, head_dim) for _ in WRITERS]
        begin = 0
        for count in steps:
            end = min(total, begin + count)
            slots = slots_of(table, size, begin, end)
            slots = torch.cat([slots, slots.new_full((2,), -1)])  # padding
            padded = torch.cat([rows[begin:end], rows.new_full((2, heads, head_dim), 1e4)])
            for pages, write in zip(found, WRITERS, strict=True):
                write(pages, padded, slots)
            begin = end
        assert torch.equal(found[0].codes, found[1].codes)
        for pages in found:
            pages.check()
            assert torch.equal(pages.scales, whole.scales)
            # Only values that are below FP8's normal ones were rounded more than once.
            apart = pages.expand(torch.float32) - whole.expand(torch.float32)
            assert (apart.abs() <= whole.scales[:, None, :, None] * 2.0**-9).all()
            assert float((apart != 0).float().mean()) < 0.001
    slots = slots_of(table, size, 0, total).long()
    error = whole.gather(slots, torch.float32) - rows.float()
    assert float(error.norm() / rows.float().norm()) < 0.03
    # Half a step of a float with three bits, or half a step of the smallest ones.
    largest = rows.float().abs().amax()
    assert (error.abs() <= torch.maximum(rows.float().abs() / 16, largest * 2.0**-16)).all()


@pytest.mark.parametrize("write", WRITERS)
def test_a_page_begins_anew_at_its_first_slot(write: object) -> None:
    assert callable(write)
    pages = empty_pages(3, 16, 1, 16)
    large = torch.full((2, 1, 16), 96.0, device=DEVICE, dtype=DTYPE)
    write(pages, large, slots_of([1], 16, 0, 2))
    write(pages, large[:1] / 1024, slots_of([1], 16, 0, 1))  # after a rewind
    assert float(pages.scales[1, 0]) == float(scale_of(torch.tensor(96 / 1024)))
    write(pages, large[:1] / 1024, slots_of([1], 16, 1, 2))
    assert torch.equal(pages.gather(slots_of([1], 16, 0, 2), DTYPE), (large / 1024).to(DTYPE))


def test_rows_of_zeros_and_of_extremes_stay_finite() -> None:
    for value in (0.0, 1e-30, 1e30):
        pages = [empty_pages(2, 16, 1, 16) for _ in WRITERS]
        rows = torch.full((1, 1, 16), value, device=DEVICE)
        for each, write in zip(pages, WRITERS, strict=True):
            write(each, rows, slots_of([1], 16, 3, 4))
            assert each.expand(torch.float32).isfinite().all()
            each.check()
        assert torch.equal(pages[0].codes, pages[1].codes)
        assert torch.equal(pages[0].scales, pages[1].scales)


def test_scales_are_the_smallest_powers_of_two() -> None:
    largest = torch.tensor([FP8_MAX, FP8_MAX * 1.001, FP8_MAX / 2, 1.0])
    assert scale_of(largest).tolist() == [1.0, 2.0, 0.5, 2.0**-8]


@pytest.mark.parametrize(("size", "window"), [(16, 0), (64, 0), (64, 20)])
def test_attention_equals_that_of_the_expanded_pages(size: int, window: int) -> None:
    heads, kv_heads, head_dim, tokens = 4, 2, 32, 70
    caches = [filled(size, kv_heads, head_dim, tokens, seed) for seed in (0, 1)]
    expanded = [each.expand(DTYPE) for each in caches]
    table = torch.arange(1, len(caches[0].codes), dtype=torch.int32, device=DEVICE)[None]
    lengths = torch.tensor([tokens], dtype=torch.int32, device=DEVICE)
    options = {"scale": head_dim**-0.5, "window": window}
    query = torch.randn(6, heads, head_dim).to(DEVICE, DTYPE)
    workspace = torch.empty(1 << 16, device=DEVICE)
    found = [
        paged_decode(query[:1], *each, table, lengths, query.new_empty(1, heads, head_dim),
                     workspace=workspace, **options)
        for each in (caches, expanded)
    ]  # fmt: skip
    torch.testing.assert_close(*found)
    starts = torch.tensor([0, 6], dtype=torch.int32, device=DEVICE)
    found = [
        paged_prefill(query, *each, table, starts, lengths, torch.empty_like(query), **options)
        for each in (caches, expanded)
    ]
    torch.testing.assert_close(*found)


def test_one_copy_equals_that_of_the_expanded_pages() -> None:
    heads, head_dim, tokens, pairs = 8, 64, 70, 16
    cache = filled(64, 1, head_dim, tokens, 0)
    angles = torch.rand(128, pairs, device=DEVICE)
    one_copy = OneCopy(torch.rand(head_dim, device=DEVICE).to(DTYPE), angles.cos(), angles.sin())
    table = torch.arange(1, len(cache.codes), dtype=torch.int32, device=DEVICE)[None]
    lengths = torch.tensor([tokens], dtype=torch.int32, device=DEVICE)
    query = torch.randn(6, heads, head_dim).to(DEVICE, DTYPE)
    starts = torch.tensor([0, 6], dtype=torch.int32, device=DEVICE)
    workspace = torch.empty(1 << 16, device=DEVICE)
    pages = (cache, cache.expand(DTYPE))
    found = [
        paged_decode(query[:1], each, None, table, lengths, torch.empty_like(query[:1]),
                     one_copy=one_copy, workspace=workspace)
        for each in pages
    ]  # fmt: skip
    torch.testing.assert_close(*found)
    found = [
        paged_prefill(query, each, None, table, starts, lengths, torch.empty_like(query),
                      one_copy=one_copy)
        for each in pages
    ]  # fmt: skip
    torch.testing.assert_close(*found)


def test_what_does_not_fit_is_refused() -> None:
    pages = empty_pages(2, 16, 2, 16)
    with pytest.raises(ValueError, match="do not fit"):
        write_fp8_pages(pages, torch.zeros(3, 1, 16, device=DEVICE), slots_of([1], 16, 0, 3))
    query = torch.zeros(1, 2, 16, device=DEVICE, dtype=DTYPE)
    table = torch.ones(1, 1, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="in type"):
        paged_decode(query, pages, pages.expand(DTYPE), table, table[0], torch.empty_like(query))
