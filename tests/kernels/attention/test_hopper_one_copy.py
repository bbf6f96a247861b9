"""One-copy attention in CUDA C++ against float64: needs a Hopper GPU; without one, what it refuses.

NaN lies wherever no key does, outputs are poisoned.
"""

from dataclasses import replace

import pytest
import torch
from helpers.kernel_cases.kernel_devices import (
    ATTENTION_LIMIT,
    DEVICE,
    needs_hopper,
    poisoned_caches,
    relative,
    rotary,
)

import eightfold.kernels.attention.hopper.hopper_one_copy as sm90
import eightfold.kernels.attention.paged_decode as triton_decode
import eightfold.kernels.attention.paged_prefill as triton_prefill
from eightfold.kernels.attention.attention_shapes import PagedShape
from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.attention.split_kv import decode_workspace_size
from eightfold.kernels.cuda import nvrtc


@pytest.fixture(autouse=True)
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels would pass these tests in the place of one that does not compile."""
    monkeypatch.setattr(triton_decode, "_launch", None)
    monkeypatch.setattr(triton_prefill, "_paged_prefill", None)


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
        "q": q, "key_cache": caches[0], "value_cache": None, "page_table": table,
        "seq_lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "one_copy": OneCopy(weight, *rotary(max(lens) + 130, 64)),
    }  # fmt: skip


def decode(case: dict, q_len: int, split: int, short: int = 0) -> torch.Tensor:
    out = torch.full_like(case["q"], float("nan"))
    most = case["page_table"].shape[1] * case["key_cache"].shape[1]
    need = decode_workspace_size(
        len(case["seq_lens"]), q_len, out.shape[1], 512, most, split, short
    )
    space = torch.full((need,), float("nan"), device=DEVICE)
    config = DecodeConfig(tile=32, split_tokens=split, short_split_tokens=short, use_hopper=True)
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
    paged_prefill(**case, starts=starts, out=out, config=PrefillConfig(64, 32, use_hopper=True))
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
    alone = dict(case, table=case["page_table"][:1], seq_lens=case["seq_lens"][:1], q=case["q"][:1])
    assert torch.equal(decode(alone, 1, 64), both[:1])


@needs_hopper
def test_result_is_independent_of_the_batch_and_repeats() -> None:
    case = build([2] * 3, [900, 611, 300])
    both = decode(case, 2, 256)
    alone = dict(
        case, table=case["page_table"][1:2], seq_lens=case["seq_lens"][1:2], q=case["q"][2:4]
    )
    assert torch.equal(decode(alone, 2, 256), both[2:4])
    last = dict(case, q=case["q"][1::2].contiguous())
    assert torch.equal(decode(last, 1, 256), both[1::2])
    assert all(torch.equal(decode(case, 2, 256), both) for _ in range(20))


def test_what_does_not_fit_is_refused() -> None:
    shape = PagedShape(rows=8, heads=32, head_dim=512, kv_heads=4, page_size=64, sequences=8)
    one_copy = OneCopy(torch.ones(512), torch.ones(65, 64), torch.ones(65, 64))
    call = {"window": 0, "sinks": None, "scale": 1.0, "q_len": 8, "split": 128, "short": 64}
    assert sm90.fits(shape, torch.bfloat16, one_copy, **call)
    assert not sm90.fits(shape, torch.float16, one_copy, **call)
    for name, wrong in (
        ("window", 64), ("sinks", torch.zeros(32)), ("scale", -1.0), ("q_len", 9), ("split", 96),
        ("short", 32),
    ):  # fmt: skip
        assert not sm90.fits(shape, torch.bfloat16, one_copy, **{**call, name: wrong}), name
    for name, wrong in (
        ("head_dim", 256), ("heads", 12), ("page_size", 32), ("sequences", 0), ("sequences", 65),
    ):  # fmt: skip
        assert not sm90.fits(replace(shape, **{name: wrong}), torch.bfloat16, one_copy, **call), (
            name
        )
    for name, wrong in (("cos", torch.ones(64, 64)), ("cos", torch.ones(65, 32)),
                        ("key_weight", torch.ones(512).half())):  # fmt: skip
        assert not sm90.fits(shape, torch.bfloat16, replace(one_copy, **{name: wrong}), **call), (
            name
        )
    q = torch.zeros(8, 32, 512, dtype=torch.bfloat16)
    assert sm90.kernel_for(shape, q, one_copy, **call) is None, "a CPU has no such kernel"
    assert sm90.kernel_for(shape, q.to(DEVICE), None, **call) is None


def test_sources_are_installed() -> None:
    folder = nvrtc.SOURCE_FOLDER
    assert all((folder / name).read_text().strip() for name in sm90.SOURCES)
