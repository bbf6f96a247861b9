"""One-copy attention in CUDA C++ against float64. Needs a Hopper GPU, except for refused inputs.

Caches hold NaN wherever there is no key, and outputs are filled with NaN first.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.kernel_cases.decode_cases import random_tree
from helpers.kernel_cases.kernel_devices import (
    ATTENTION_LIMIT,
    DEVICE,
    needs_hopper,
    poisoned_caches,
    relative_error,
    rotary,
)

import eightfold.kernels.attention.paged_decode as paged_decode_module
import eightfold.kernels.attention.paged_prefill as paged_prefill_module
from eightfold.kernels.attention.attention_shapes import PagedInputs, PagedShape
from eightfold.kernels.attention.float64_reference import (
    paged_decode_reference,
    paged_prefill_reference,
)
from eightfold.kernels.attention.hopper import hopper_one_copy
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill
from eightfold.kernels.attention.split_kv import decode_workspace_size


@pytest.fixture(autouse=True)
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable Triton's kernels: they would hide that the CUDA C++ kernel does not compile."""
    monkeypatch.setattr(paged_decode_module, "_launch_triton", None)
    monkeypatch.setattr(paged_prefill_module, "_launch_triton", None)


def build(
    counts: list[int], lens: list[int], heads: int = 32, kv_heads: int = 4, page_size: int = 64
) -> dict:
    """Return queries of ``counts`` tokens that end at ``lens``, and their cache."""
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


def decode(
    case: dict, q_len: int, split: int, short: int = 0, tree: torch.Tensor | None = None
) -> torch.Tensor:
    out = torch.full_like(case["q"], float("nan"))
    most = case["page_table"].shape[1] * case["key_cache"].shape[1]
    need = decode_workspace_size(
        len(case["seq_lens"]), q_len, out.shape[1], 512, most, split, short
    )
    space = torch.full((need,), float("nan"), device=DEVICE)
    config = DecodeConfig(tile=32, split_tokens=split, short_split_tokens=short, use_hopper=True)
    return paged_decode(**case, out=out, q_len=q_len, tree=tree, workspace=space, config=config)


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
    config = PrefillConfig(64, 32, use_hopper=True)
    paged_prefill(**case, query_starts=starts, out=out, config=config)
    wanted = paged_prefill_reference(**case, query_starts=starts)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


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
    assert relative_error(decode(case, q_len, split, short), wanted) < ATTENTION_LIMIT


@needs_hopper
@pytest.mark.parametrize(
    ("lens", "q_len", "split", "short"),
    [
        ([300, 64, 8, 67, 129, 0], 8, 128, 0),  # the trees of 67 and 129 keys cross tiles
        ([2048, 2051, 900], 4, 1024, 256),
        ([130, 260], 2, 128, 0),
    ],
)
def test_trees(lens: list[int], q_len: int, split: int, short: int) -> None:
    case, tree = build([q_len] * len(lens), lens), random_tree(1, lens, q_len)
    wanted = paged_decode_reference(**case, q_len=q_len, tree=tree)
    assert relative_error(decode(case, q_len, split, short, tree), wanted) < ATTENTION_LIMIT


@needs_hopper
def test_short_sequences_have_short_splits() -> None:
    case = build([1, 1], [512, 513])
    both = decode(case, 1, 192, 64)
    alone = case | {name: case[name][:1] for name in ("page_table", "seq_lens", "q")}
    assert torch.equal(decode(alone, 1, 64), both[:1])


@needs_hopper
def test_results_repeat_and_do_not_depend_on_the_batch() -> None:
    case = build([2] * 3, [900, 611, 300])
    both = decode(case, 2, 256)
    alone = case | {name: case[name][1:2] for name in ("page_table", "seq_lens")}
    alone["q"] = case["q"][2:4]
    assert torch.equal(decode(alone, 2, 256), both[2:4])
    last = case | {"q": case["q"][1::2].contiguous()}
    assert torch.equal(decode(last, 1, 256), both[1::2])
    assert all(torch.equal(decode(case, 2, 256), both) for _ in range(20))


def one_copy_inputs(**changes: Any) -> PagedInputs:
    """Return inputs of decode that the kernel supports, with some of them changed."""
    inputs = PagedInputs(
        q=torch.zeros(8, 32, 512, dtype=torch.bfloat16),
        key_cache=torch.zeros(3, 64, 4, 512, dtype=torch.bfloat16),
        value_cache=None,
        page_table=torch.zeros(1, 2, dtype=torch.int32),
        seq_lens=torch.zeros(1, dtype=torch.int32),
        window=0,
        scale=1.0,
        one_copy=OneCopy(torch.ones(512), torch.ones(65, 64), torch.ones(65, 64)),
    )
    return replace(inputs, **changes)


SHAPE = PagedShape(rows=8, heads=32, head_dim=512, kv_heads=4, page_size=64, sequences=1)
DECODE = {"q_len": 8, "split_tokens": 128, "short_split_tokens": 64}


def test_unsupported_inputs_do_not_fit() -> None:
    assert hopper_one_copy.fits(SHAPE, one_copy_inputs(), **DECODE)
    one_copy = one_copy_inputs().one_copy
    assert one_copy is not None
    for changes in (
        {"q": torch.zeros(8, 32, 512, dtype=torch.float16)},
        {"window": 64},
        {"sinks": torch.zeros(32)},
        {"scale": -1.0},
        {"one_copy": None},
        {"one_copy": replace(one_copy, cos=torch.ones(64, 64))},
        {"one_copy": replace(one_copy, cos=torch.ones(65, 32))},
        {"one_copy": replace(one_copy, key_weight=torch.ones(512).half())},
    ):
        assert not hopper_one_copy.fits(SHAPE, one_copy_inputs(**changes), **DECODE), changes


@pytest.mark.parametrize(
    ("name", "value"),
    [("head_dim", 256), ("heads", 12), ("page_size", 32), ("sequences", 0), ("sequences", 65)],
)
def test_unsupported_shapes_do_not_fit(name: str, value: int) -> None:
    assert not hopper_one_copy.fits(replace(SHAPE, **{name: value}), one_copy_inputs(), **DECODE)


@pytest.mark.parametrize(
    ("name", "value"), [("q_len", 9), ("split_tokens", 96), ("short_split_tokens", 32)]
)
def test_unsupported_options_do_not_fit(name: str, value: int) -> None:
    assert not hopper_one_copy.fits(SHAPE, one_copy_inputs(), **(DECODE | {name: value}))


def test_only_hopper_launches_the_kernel() -> None:
    results = torch.empty(1)
    assert not hopper_one_copy.launch_decode(
        SHAPE, one_copy_inputs(), results, results, **DECODE, pdl=False
    )
    assert not hopper_one_copy.launch_prefill(SHAPE, one_copy_inputs(), results, results)
