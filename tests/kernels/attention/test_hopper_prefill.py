"""Prefill attention of head_dim 256 in CUDA C++ against float64: needs a Hopper GPU; without one,
what it refuses and, where nvcc is, that it builds.

NaN lies wherever no key does that a row may see, outputs are poisoned.
"""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.kernel_devices import (
    DEVICE,
    DTYPE,
    HOPPER,
    needs_hopper,
    poisoned_caches,
    relative,
)

import eightfold.kernels.attention.hopper.hopper_prefill as sm90
import eightfold.kernels.attention.paged_prefill as triton_prefill
from eightfold.kernels.attention.attention_shapes import PagedShape
from eightfold.kernels.attention.float64_reference import paged_prefill_reference
from eightfold.kernels.attention.paged_prefill import default_prefill_config, paged_prefill
from eightfold.kernels.cuda import nvrtc

LIMIT = 2.5e-3  # weights and results are rounded to bfloat16: 1.7e-3 each


@pytest.fixture(autouse=True)
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernel would pass these tests in the place of one that does not compile."""
    monkeypatch.setattr(triton_prefill, "_paged_prefill", None)


def build(
    counts: list[int], lens: list[int], window: int = 0, heads: int = 32, kv_heads: int = 16,
    page_size: int = 64, spread: float = 0.2,
) -> dict:  # fmt: skip
    """Chunks of ``counts`` tokens that end at ``lens``; scores of 16 times ``spread``."""
    torch.manual_seed(sum(lens))
    lows = [max(0, n - c - window + 1) if window else 0 for n, c in zip(lens, counts, strict=True)]
    caches, table, firsts = poisoned_caches(
        2, lens, lows, (page_size, kv_heads, 256), sum(lens) + sum(counts)
    )
    return {
        "q": (torch.randn(sum(counts), heads, 256, device=DEVICE) * spread).to(DTYPE),
        "key_cache": caches[0], "value_cache": caches[1], "page_table": table,
        "query_starts": torch.tensor([0, *counts], device=DEVICE).cumsum(0).int(),
        "seq_lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "first_pos": torch.tensor(firsts, dtype=torch.int32, device=DEVICE), "window": window,
    }  # fmt: skip


def attend(case: dict, scale: float = 1.0) -> torch.Tensor:
    return paged_prefill(**case, out=torch.full_like(case["q"], float("nan")), scale=scale)


CASES = {
    "one token": ([1], [1], 1024),
    "prompts of mixed lengths": ([65, 1, 0, 130], [65, 700, 0, 131], 1024),
    "a whole step": ([1024], [1024], 1024),
    "scores far apart": ([1000], [4123], 1024, 32, 16, 64, 1.0),
    "narrow windows": ([300, 77], [1500, 400], 64),
    "pages of two tiles": ([200, 31, 64], [977, 31, 640], 200, 32, 16, 128),
    "eight sequences": ([128] * 8, [1500, 128, 129, 191, 1088, 1151, 3000, 7777], 1024),
    "no window": ([150, 20], [2100, 60], 0),
    "only itself": ([100], [164], 1),
    "one head a key": ([200, 9], [1300, 9], 256, 4, 4),
    "four heads a key": ([200, 9], [1300, 9], 256, 8, 2, 256),
    "64 heads a key": ([3], [200], 1024, 64, 1),
}


@needs_hopper
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name: str) -> None:
    case = build(*CASES[name])
    for scale in (1.0, 0.3):
        wanted = paged_prefill_reference(**case, scale=scale)
        assert relative(attend(case, scale=scale), wanted) < LIMIT


@needs_hopper
def test_result_is_independent_of_the_batch_and_of_chunks_and_repeats() -> None:
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
def test_rows_of_nobody_are_left_alone() -> None:
    case = build([40], [40], 1024)
    case["query_starts"][1] = 33
    out = attend(case)
    assert not out[:33].isnan().any()
    assert out[33:].isnan().all()


def test_what_does_not_fit_is_refused() -> None:
    assert default_prefill_config(256).use_hopper
    shape = PagedShape(rows=3, heads=8, head_dim=256, kv_heads=4, page_size=64, sequences=2)
    call = {"sinks": None, "scale": 1.0}
    assert sm90.fits(shape, torch.bfloat16, **call)
    assert not sm90.fits(shape, torch.float16, **call)
    assert not sm90.fits(shape, torch.bfloat16, sinks=torch.zeros(8), scale=1.0)
    assert not sm90.fits(shape, torch.bfloat16, sinks=None, scale=-1.0)
    for name, wrong in (
        ("head_dim", 128), ("heads", 12), ("page_size", 32), ("rows", 0), ("sequences", 65),
    ):  # fmt: skip
        assert not sm90.fits(replace(shape, **{name: wrong}), torch.bfloat16, **call), name
    q = torch.zeros(3, 8, 256, dtype=torch.bfloat16)
    assert sm90.kernel_for(shape, q, **call) is None, "a CPU has no such kernel"
    if HOPPER:
        assert sm90.kernel_for(shape, q.to(DEVICE), **call) is not None


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_builds_without_spills(tmp_path: Path) -> None:
    folder = nvrtc.SOURCE_FOLDER
    source = tmp_path / "attention.cu"
    source.write_text("".join((folder / name).read_text() for name in sm90.SOURCES))
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v", "-DHQ=32", "-DHK=16", "-DPS=64"]
    command += ["-o", str(tmp_path / "attention.cubin"), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in run.stderr
    assert "C75" not in run.stderr  # products that wait for each other
