"""Prefill attention in CUDA C++ against float64.

Needs a Hopper GPU, except for refused inputs. Caches hold NaN wherever there is no key that a row
may see, and outputs are filled with NaN first.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.kernel_cases.kernel_devices import (
    DEVICE,
    DTYPE,
    HOPPER,
    needs_hopper,
    poisoned_caches,
    relative_error,
)

import eightfold.kernels.attention.paged_prefill as paged_prefill_module
from eightfold.kernels.attention.attention_shapes import PagedInputs, PagedShape
from eightfold.kernels.attention.float64_reference import paged_prefill_reference
from eightfold.kernels.attention.hopper import hopper_prefill
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_prefill import default_prefill_config, paged_prefill

LIMIT = 2.5e-3  # weights and results are rounded to bfloat16: 1.7e-3 each


@pytest.fixture(autouse=True)
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable Triton's kernel: it would hide that the CUDA C++ kernel does not compile."""
    monkeypatch.setattr(paged_prefill_module, "_launch_triton", None)


def build(
    counts: list[int], lens: list[int], window: int = 0, heads: int = 32, kv_heads: int = 16,
    page_size: int = 64, spread: float = 0.2, head_dim: int = 256,
) -> dict:  # fmt: skip
    """Return chunks of ``counts`` tokens that end at ``lens``.

    Scores spread by ``spread`` times the root of ``head_dim``.
    """
    torch.manual_seed(sum(lens))
    lows = [max(0, n - c - window + 1) if window else 0 for n, c in zip(lens, counts, strict=True)]
    caches, table, firsts = poisoned_caches(
        2, lens, lows, (page_size, kv_heads, head_dim), sum(lens) + sum(counts)
    )
    return {
        "q": (torch.randn(sum(counts), heads, head_dim, device=DEVICE) * spread).to(DTYPE),
        "key_cache": caches[0], "value_cache": caches[1], "page_table": table,
        "query_starts": torch.tensor([0, *counts], device=DEVICE).cumsum(0).int(),
        "seq_lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE), "window": window,
    }  # fmt: skip


def attend(case: dict, **options: Any) -> torch.Tensor:
    return paged_prefill(**case, out=torch.full_like(case["q"], float("nan")), **options)


CASES = {
    "one token": ([1], [1], 1024),
    "prompts of mixed lengths": ([65, 1, 0, 130], [65, 700, 0, 131], 1024),
    "a whole step": ([1024], [1024], 1024),
    "scores far apart": ([1000], [4123], 1024, 32, 16, 64, 1.0),
    "narrow windows": ([300, 77], [1500, 400], 64),
    "pages of two tiles": ([200, 31, 64], [977, 31, 640], 200, 32, 16, 128),
    "eight sequences": ([128] * 8, [1500, 128, 129, 191, 1088, 1151, 3000, 7777], 1024),
    "no window": ([150, 20], [2100, 60], 0),
    "a window of one token": ([100], [164], 1),
    "one head per KV head": ([200, 9], [1300, 9], 256, 4, 4),
    "four heads per KV head": ([200, 9], [1300, 9], 256, 8, 2, 256),
    "64 heads per KV head": ([3], [200], 1024, 64, 1),
}


@needs_hopper
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name: str) -> None:
    case = build(*CASES[name])
    for scale in (1.0, 0.3):
        wanted = paged_prefill_reference(**case, scale=scale)
        assert relative_error(attend(case, scale=scale), wanted) < LIMIT


@needs_hopper
@pytest.mark.parametrize("window", [0, 128, 1000])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_sinks_of_every_head_dimension(head_dim: int, window: int) -> None:
    counts, lens = [300, 77, 1], [1500, 77, 400]
    case = build(counts, lens, window, 32, 4, head_dim=head_dim)
    sinks = torch.randn(32, device=DEVICE).to(DTYPE)
    for options in ({}, {"sinks": sinks}):
        out = attend(case, scale=0.5, **options)
        wanted = paged_prefill_reference(**case, scale=0.5, **options)
        assert relative_error(out, wanted) < LIMIT


@needs_hopper
@pytest.mark.parametrize("page_size", [64, 128, 256])
def test_tiles_of_one_and_of_two_pages(page_size: int) -> None:
    case = build([200, 31, 64], [977, 31, 640], 0, 16, 2, page_size, head_dim=128)
    assert relative_error(attend(case), paged_prefill_reference(**case)) < LIMIT


@needs_hopper
def test_results_repeat_and_do_not_depend_on_the_batch_or_on_chunks() -> None:
    counts, lens = [300, 64, 129], [1500, 900, 2000]
    case = build(counts, lens, 512)
    whole = attend(case)
    assert all(torch.equal(attend(case), whole) for _ in range(20))
    for s, parts in ((1, [64]), (2, [129]), (0, [200, 100])):
        begin, length = sum(counts[:s]), lens[s] - counts[s]
        for part in parts:
            rows, length = slice(begin, begin + part), length + part
            begin += part
            alone = case | {
                "q": case["q"][rows].contiguous(),
                "page_table": case["page_table"][s : s + 1],
                "first_pos": case["first_pos"][s : s + 1],
                "query_starts": torch.tensor([0, part], dtype=torch.int32, device=DEVICE),
                "seq_lens": torch.tensor([length], dtype=torch.int32, device=DEVICE),
            }
            assert torch.equal(attend(alone), whole[rows])


@needs_hopper
def test_rows_beyond_the_last_are_not_written() -> None:
    case = build([40], [40], 1024)
    case["query_starts"][1] = 33
    out = attend(case)
    assert not out[:33].isnan().any()
    assert out[33:].isnan().all()


def prefill_inputs(**changes: Any) -> PagedInputs:
    """Return inputs that the kernel supports, with some of them changed."""
    inputs = PagedInputs(
        q=torch.zeros(3, 8, 256, dtype=torch.bfloat16),
        key_cache=torch.zeros(3, 64, 4, 256, dtype=torch.bfloat16),
        value_cache=torch.zeros(3, 64, 4, 256, dtype=torch.bfloat16),
        page_table=torch.zeros(2, 1, dtype=torch.int32),
        seq_lens=torch.zeros(2, dtype=torch.int32),
        window=0,
        scale=1.0,
    )
    return replace(inputs, **changes)


SHAPE = PagedShape(rows=3, heads=8, head_dim=256, kv_heads=4, page_size=64, sequences=2)


def test_the_default_configuration_uses_the_kernel() -> None:
    assert all(default_prefill_config(head_dim).use_hopper for head_dim in (64, 128, 256))


def test_unsupported_inputs_do_not_fit() -> None:
    assert hopper_prefill.fits(SHAPE, prefill_inputs())
    for changes in (
        {"q": torch.zeros(3, 8, 256, dtype=torch.float16)},
        {"sinks": torch.zeros(8)},
        {"scale": -1.0},
        {"one_copy": OneCopy(torch.ones(256), torch.ones(65, 64), torch.ones(65, 64))},
    ):
        assert not hopper_prefill.fits(SHAPE, prefill_inputs(**changes)), changes


@pytest.mark.parametrize(
    ("name", "value"),
    [("head_dim", 96), ("heads", 12), ("page_size", 32), ("rows", 0), ("sequences", 65)],
)
def test_unsupported_shapes_do_not_fit(name: str, value: int) -> None:
    assert not hopper_prefill.fits(replace(SHAPE, **{name: value}), prefill_inputs())


def test_only_hopper_has_the_kernel() -> None:
    starts, out = torch.zeros(3, dtype=torch.int32), torch.empty(3, 8, 256)
    assert not hopper_prefill.launch_prefill(SHAPE, prefill_inputs(), starts, out)
    if HOPPER:
        assert hopper_prefill._kernel(SHAPE, torch.device(DEVICE)) is not None
