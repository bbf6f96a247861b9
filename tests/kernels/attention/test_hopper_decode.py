"""Decode attention in CUDA C++ against float64.

Needs a Hopper GPU, except for refused inputs. Caches hold NaN wherever there is no key that a row
may see, and outputs are filled with NaN first.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.kernel_cases.decode_cases import decode_case, run_decode
from helpers.kernel_cases.kernel_devices import DEVICE, DTYPE, needs_hopper, relative_error

import eightfold.kernels.attention.paged_decode as paged_decode_module
from eightfold.kernels.attention.attention_shapes import PagedInputs, PagedShape
from eightfold.kernels.attention.float64_reference import paged_decode_reference
from eightfold.kernels.attention.hopper import hopper_decode
from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import DecodeConfig, default_decode_config

LIMIT = 4e-3  # weights and results are rounded to bfloat16
LENS = [1, 0, 63, 64, 65, 130, 700, 2048, 2049, 5000]
WHOLE = DecodeConfig(use_hopper=True)
SPLITS = DecodeConfig(split_tokens=512, short_split_tokens=256, use_hopper=True)
LONG_SPLITS = DecodeConfig(split_tokens=512, use_hopper=True)


@pytest.fixture(autouse=True)
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable Triton's kernel: it would hide that the CUDA C++ kernel does not compile."""
    monkeypatch.setattr(paged_decode_module, "_launch_triton", None)


@needs_hopper
@pytest.mark.parametrize("config", [WHOLE, SPLITS, LONG_SPLITS], ids=["whole", "splits", "long"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window", "page_size", "q_len"),
    [
        (64, 8, 128, 0, 64, 1),
        (64, 8, 128, 0, 16, 1),
        (32, 32, 128, 0, 64, 1),
        (12, 2, 64, 100, 64, 1),
        (64, 8, 64, 128, 256, 1),
        (32, 16, 256, 1024, 64, 1),
        (64, 8, 128, 0, 64, 2),
        (64, 8, 128, 300, 64, 4),
        (64, 8, 128, 0, 64, 8),
        (64, 8, 64, 0, 64, 8),
        (32, 16, 256, 1024, 64, 8),
        (32, 16, 256, 0, 32, 16),
    ],
)
def test_matches_float64(
    heads: int, kv_heads: int, head_dim: int, window: int, page_size: int, q_len: int,
    config: DecodeConfig,
) -> None:  # fmt: skip
    lens = [n for n in LENS if n == 0 or n >= q_len]
    case = decode_case(
        q_len, lens, heads=heads, kv_heads=kv_heads, head_dim=head_dim, page_size=page_size,
        q_len=q_len, window=window,
    )  # fmt: skip
    sinks = torch.randn(heads, device=DEVICE).to(DTYPE)
    for options in ({"scale": 0.3}, {"scale": 0.3, "sinks": sinks}):
        out = run_decode(case, config, pdl=True, **options)
        assert relative_error(out, paged_decode_reference(**case, **options)) < LIMIT


@needs_hopper
@pytest.mark.parametrize("q_len", [1, 4])
def test_results_repeat_and_do_not_depend_on_the_batch(q_len: int) -> None:
    case = decode_case(
        5, [4000 + 37 * i for i in range(24)], heads=64, kv_heads=8, head_dim=128, page_size=64,
        q_len=q_len,
    )  # fmt: skip
    whole = run_decode(case, SPLITS)
    assert all(torch.equal(run_decode(case, SPLITS), whole) for _ in range(50))
    # Items before its own leave the ring at other places, so that other warps take its tiles.
    for i in range(24):
        rows = slice(i * q_len, (i + 1) * q_len)
        alone = case | {
            "q": case["q"][rows].contiguous(),
            "page_table": case["page_table"][i : i + 1],
            "seq_lens": case["seq_lens"][i : i + 1],
        }
        assert torch.equal(run_decode(alone, SPLITS), whole[rows])


def decode_inputs(**changes: Any) -> PagedInputs:
    """Return inputs that the kernel supports, with some of them changed."""
    inputs = PagedInputs(
        q=torch.zeros(2, 8, 128, dtype=torch.bfloat16),
        key_cache=torch.zeros(3, 64, 4, 128, dtype=torch.bfloat16),
        value_cache=torch.zeros(3, 64, 4, 128, dtype=torch.bfloat16),
        page_table=torch.zeros(2, 1, dtype=torch.int32),
        seq_lens=torch.zeros(2, dtype=torch.int32),
        window=0,
        scale=1.0,
    )
    return replace(inputs, **changes)


SHAPE = PagedShape(rows=2, heads=8, head_dim=128, kv_heads=4, page_size=64, sequences=2)


def fits(shape: PagedShape, inputs: PagedInputs, q_len: int = 1, split_tokens: int = 0) -> bool:
    return hopper_decode.fits(
        shape, inputs, q_len=q_len, split_tokens=split_tokens, short_split_tokens=0
    )


def test_the_default_configuration_uses_the_kernel_for_narrow_heads() -> None:
    for window in (0, 128, 4096):
        assert default_decode_config(window, head_dim=64).use_hopper
        assert not default_decode_config(window, head_dim=256).use_hopper


def test_unsupported_inputs_do_not_fit() -> None:
    assert fits(SHAPE, decode_inputs())
    sinks = decode_inputs(sinks=torch.zeros(8))
    assert not fits(SHAPE, sinks)
    assert fits(SHAPE, sinks, split_tokens=512), "then the sinks are added with the splits"
    for changes in (
        {"q": torch.zeros(2, 8, 128, dtype=torch.float16)},
        {"scale": -1.0},
        {"one_copy": OneCopy(torch.ones(128), torch.ones(65, 64), torch.ones(65, 64))},
    ):
        assert not fits(SHAPE, decode_inputs(**changes)), changes


@pytest.mark.parametrize(
    ("name", "value"),
    [("head_dim", 96), ("page_size", 8), ("sequences", 0), ("sequences", 513)],
)
def test_unsupported_shapes_do_not_fit(name: str, value: int) -> None:
    assert not fits(replace(SHAPE, **{name: value}), decode_inputs())


def test_too_many_rows_and_crooked_splits_do_not_fit() -> None:
    assert not fits(SHAPE, decode_inputs(), q_len=64)
    assert not fits(SHAPE, decode_inputs(), split_tokens=40)


@pytest.mark.parametrize("head_dim", hopper_decode.HEAD_DIMS)
def test_a_ring_fits_the_shared_memory_and_its_slots_belong_to_streams(head_dim: int) -> None:
    found = 0
    for rows in range(1, 129):
        layout = hopper_decode.warp_layout(rows, head_dim)
        if layout is None:
            continue
        found += 1
        merged = hopper_decode.merge_bytes(rows, head_dim, layout.streams)
        used = layout.slots * hopper_decode.slot_bytes() + merged + hopper_decode.STATE_BYTES
        assert used <= hopper_decode.MAX_SHARED_BYTES
        assert layout.slots % layout.streams == 0
        assert rows <= layout.row_blocks * hopper_decode.MAX_ROWS[head_dim]
    assert found >= 32
