"""One-copy attention in CUDA C++ against float64: needs a Hopper GPU; without one, what it refuses.

NaN lies wherever no key does, outputs are poisoned.
"""

from pathlib import Path

import pytest
import torch
from kernel_device import ATTENTION_LIMIT, CUDA, DEVICE, poisoned_caches, relative, rotary

import eightfold.kernels.onecopy_sm90 as sm90
from eightfold.kernels.decode import DecodeConfig, decode_workspace, paged_decode
from eightfold.kernels.onecopy import OneCopy
from eightfold.kernels.prefill import PrefillConfig, paged_prefill
from eightfold.kernels.reference import paged_decode_reference, paged_prefill_reference
from eightfold.kernels.shapes import paged_shape

HOPPER = CUDA and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")


def build(
    counts: list[int], lens: list[int], heads: int = 32, kv_heads: int = 4, page_size: int = 64
) -> dict:
    """Queries of ``counts`` tokens that end at ``lens``, and their cache."""
    torch.manual_seed(sum(lens))
    caches, table, _ = poisoned_caches(
        1, lens, [0] * len(lens), (page_size, kv_heads, 512), sum(lens)
    )
    q = torch.randn(sum(counts), heads, 512, device=DEVICE).to(caches[0].dtype) * 0.05
    weight = (1 + 0.3 * torch.randn(512, device=DEVICE)).to(q.dtype)
    return {
        "q": q, "key_cache": caches[0], "value_cache": None, "table": table,
        "lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "one_copy": OneCopy(weight, *rotary(max(lens) + 130, 64)),
    }  # fmt: skip


def decode(case: dict, q_len: int, split: int, short: int = 0) -> torch.Tensor:
    out = torch.full_like(case["q"], float("nan"))
    most = case["table"].shape[1] * case["key_cache"].shape[1]
    need = decode_workspace(len(case["lens"]), q_len, out.shape[1], 512, most, split, short)
    space = torch.full((need,), float("nan"), device=DEVICE)
    config = DecodeConfig(tile=32, split=split, short=short, hopper=True)
    return paged_decode(**case, out=out, q_len=q_len, workspace=space, config=config)


@needs_hopper
@pytest.mark.parametrize(
    ("counts", "lens", "options"),
    [
        ([1], [1], {}),
        ([64], [64], {}),
        ([8], [180], {}),
        ([100, 1, 70, 0], [300, 200, 70, 0], {}),
        ([50, 9], [150, 90], {"page_size": 256}),
        ([20, 9], [150, 90], {"kv_heads": 2}),
        ([700], [2100], {}),
    ],
)
def test_chunks(counts: list[int], lens: list[int], options: dict) -> None:
    case = build(counts, lens, **options)
    starts = torch.tensor([0, *counts], device=DEVICE).cumsum(0).int()
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(**case, starts=starts, out=out, config=PrefillConfig(64, 32, hopper=True))
    assert relative(out, paged_prefill_reference(**case, starts=starts)) < ATTENTION_LIMIT


@needs_hopper
@pytest.mark.parametrize(
    ("lens", "q_len", "split", "short"),
    [
        ([300, 65, 1, 0], 1, 128, 0),
        ([300, 64, 8], 8, 128, 0),
        ([3000, 517], 1, 512, 0),
        ([130], 3, 64, 0),
        ([512, 513, 0, 40, 1200], 1, 192, 64),
        ([2048, 2049, 900], 4, 1024, 256),
    ],
)
def test_decode(lens: list[int], q_len: int, split: int, short: int) -> None:
    case = build([q_len] * len(lens), lens)
    wanted = paged_decode_reference(**case, q_len=q_len)
    assert relative(decode(case, q_len, split, short), wanted) < ATTENTION_LIMIT


@needs_hopper
def test_short_sequences_have_short_splits() -> None:
    case = build([1, 1], [512, 513])
    both = decode(case, 1, 192, 64)
    alone = dict(case, table=case["table"][:1], lens=case["lens"][:1], q=case["q"][:1])
    assert torch.equal(decode(alone, 1, 64), both[:1])


@needs_hopper
def test_result_is_independent_of_the_batch_and_repeats() -> None:
    case = build([2] * 3, [900, 611, 300])
    both = decode(case, 2, 256)
    alone = dict(case, table=case["table"][1:2], lens=case["lens"][1:2], q=case["q"][2:4])
    assert torch.equal(decode(alone, 2, 256), both[2:4])
    last = dict(case, q=case["q"][1::2].contiguous())
    assert torch.equal(decode(last, 1, 256), both[1::2])
    assert all(torch.equal(decode(case, 2, 256), both) for _ in range(20))


def test_what_does_not_fit_is_refused() -> None:
    case = build([1], [5])
    q, one_copy = case["q"], case["one_copy"]
    shape = paged_shape(q, case["key_cache"], None, case["table"], case["lens"], q, one_copy)
    given = {"window": 0, "sinks": None, "scale": 1.0}
    if not HOPPER:
        assert sm90.kernel_for(shape, q, one_copy, **given) is None
    assert sm90.kernel_for(shape, q, None, **given) is None
    assert sm90.kernel_for(shape, q, one_copy, **{**given, "window": 64}) is None
    assert sm90.kernel_for(shape, q, one_copy, **given, split=96) is None
    assert sm90.kernel_for(shape, q, one_copy, **given, split=128, short=32) is None
    assert sm90.kernel_for(shape, q, one_copy, **given, q_len=9) is None
    assert sm90.kernel_for(shape, q.float().half(), one_copy, **given) is None


def test_sources_are_installed() -> None:
    folder = Path(sm90.__file__).parent
    assert all((folder / name).read_text().strip() for name in sm90.SOURCES)
