"""Paged decode attention against its float64 reference. Outputs and unseen keys hold NaN before.

Takes about 12 seconds in Triton's interpreter.
"""

import pytest
import torch
from helpers.kernel_cases.decode_cases import decode_case, run_decode
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, DEVICE, relative_error, rotary

from eightfold.kernels.attention.float64_reference import paged_decode_reference
from eightfold.kernels.attention.one_copy_keys import OneCopy, fold_key_weight, rebuild_keys
from eightfold.kernels.attention.paged_decode import DecodeConfig, paged_decode
from eightfold.kernels.attention.split_kv import decode_workspace_size

CASES = {
    "plain": {"seq_lens": [37, 1, 64], "heads": 4, "kv_heads": 2, "head_dim": 64},
    "window": {"seq_lens": [70, 5, 33], "heads": 4, "kv_heads": 2, "head_dim": 32, "window": 24},
    "window_rows": {
        "seq_lens": [70, 5, 34],
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 32,
        "window": 24,
        "q_len": 3,
    },
    "odd_dim": {"seq_lens": [19, 40], "heads": 6, "kv_heads": 2, "head_dim": 80},
    "group_of_one": {
        "seq_lens": [9, 0, 50],
        "heads": 3,
        "kv_heads": 3,
        "head_dim": 64,
        "page_size": 64,
    },
    "one_copy": {"seq_lens": [45, 100, 3], "heads": 8, "kv_heads": 2, "head_dim": 128, "pairs": 16},
    "one_copy_rows": {
        "seq_lens": [45, 70],
        "heads": 8,
        "kv_heads": 1,
        "head_dim": 64,
        "pairs": 5,
        "q_len": 4,
    },
}


@pytest.mark.parametrize("split", [0, 32])
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name: str, split: int) -> None:
    case = decode_case(len(name), **CASES[name])
    out = run_decode(case, DecodeConfig(tile=16, split_tokens=split, stages=2))
    assert relative_error(out, paged_decode_reference(**case)) < ATTENTION_LIMIT


@pytest.mark.parametrize("options", [{}, {"pairs": 8, "q_len": 3}, {"window": 140}])
def test_short_sequences_have_short_splits(options: dict) -> None:
    """Short sequences have at most eight splits of 16 tokens, longer ones have splits of 48."""
    case = decode_case(11, [128, 129, 40, 0, 200], heads=4, kv_heads=2, head_dim=64, **options)
    out = run_decode(case, DecodeConfig(tile=16, split_tokens=48, short_split_tokens=16))
    assert relative_error(out, paged_decode_reference(**case)) < ATTENTION_LIMIT
    first = {name: case[name][:1] for name in ("page_table", "seq_lens")}
    if case["first_pos"] is not None:
        first["first_pos"] = case["first_pos"][:1]
    rows = case["q_len"]
    alone = dict(case, **first, q=case["q"][:rows])
    small = run_decode(alone, DecodeConfig(tile=16, split_tokens=16))
    torch.testing.assert_close(small, out[:rows], rtol=0, atol=0)


def test_capped_scores() -> None:
    case = decode_case(4, [20, 41], heads=4, kv_heads=2, head_dim=32)
    options = {"scale": 0.5, "softcap": 2.0, "sinks": torch.ones(4, device=DEVICE)}
    out = run_decode(case, DecodeConfig(tile=16, split_tokens=32), **options)
    wanted = paged_decode_reference(**case, **options)
    assert relative_error(out, wanted) < ATTENTION_LIMIT
    uncapped = paged_decode_reference(**case, **{**options, "softcap": 0.0})
    assert relative_error(uncapped, wanted) > 10 * ATTENTION_LIMIT


@pytest.mark.parametrize("split", [0, 32])
def test_sinks_take_weight_but_add_no_value(split: int) -> None:
    case = decode_case(3, [20, 41], heads=4, kv_heads=2, head_dim=32)
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0], device=DEVICE)
    out = run_decode(case, DecodeConfig(tile=16, split_tokens=split), sinks=sinks, scale=0.2)
    assert (
        relative_error(out, paged_decode_reference(**case, sinks=sinks, scale=0.2))
        < ATTENTION_LIMIT
    )


def test_workspace_suffices_for_a_window_across_two_splits() -> None:
    """The page table has room for 28 tokens, less than a split; the workspace is not overrun."""
    case = decode_case(5, [97, 64], heads=2, kv_heads=1, head_dim=16, page_size=4, window=23)
    max_tokens = case["page_table"].shape[1] * 4
    assert max_tokens == 28
    config = DecodeConfig(tile=32, split_tokens=96)
    need = decode_workspace_size(2, 1, 2, 16, max_tokens, 96, window=23)
    memory = torch.full((4 * need,), 7.0, device=DEVICE)
    out = torch.full_like(case["q"], float("nan"))
    paged_decode(**case, out=out, workspace=memory[:need], config=config)
    assert relative_error(out, paged_decode_reference(**case)) < ATTENTION_LIMIT
    assert (memory[need:] == 7.0).all()
    with pytest.raises(ValueError, match="are needed"):
        paged_decode(**case, out=out, workspace=memory[: need - 1], config=config)


def test_a_tile_may_span_pages() -> None:
    case = decode_case(4, [50, 33], heads=4, kv_heads=2, head_dim=32, page_size=16, window=20)
    out = run_decode(case, DecodeConfig(tile=32))
    assert relative_error(out, paged_decode_reference(**case)) < ATTENTION_LIMIT


def test_result_is_independent_of_other_sequences_and_rows() -> None:
    """A row has the same bits alone, in a batch, and as the last of several verified rows."""
    config = DecodeConfig(tile=16, split_tokens=32)
    case = decode_case(5, [90, 61, 30], heads=4, kv_heads=2, head_dim=64, pairs=8, q_len=2)
    both = run_decode(case, config)
    alone = dict(
        case, page_table=case["page_table"][1:2], seq_lens=case["seq_lens"][1:2], q=case["q"][2:4]
    )
    torch.testing.assert_close(run_decode(alone, config), both[2:4], rtol=0, atol=0)
    last = dict(case, q=case["q"][1::2].contiguous(), q_len=1)
    torch.testing.assert_close(run_decode(last, config), both[1::2], rtol=0, atol=0)


def test_folded_query_and_rebuilt_key_give_the_original_scores() -> None:
    """In float64, q.k by the checkpoint's formula equals q.k of the one-copy layer."""
    torch.manual_seed(0)
    head_dim, pairs = 64, 8
    n, q_hat = torch.randn(5, 1, head_dim).double(), torch.randn(5, 1, head_dim).double()
    w_q, w_k = torch.randn(head_dim), torch.randn(head_dim)
    cos, sin = (t.cpu() for t in rotary(9, pairs))
    positions = torch.arange(5)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        return rebuild_keys(x, OneCopy(torch.ones(head_dim), cos, sin), positions)

    wanted = (rotate(q_hat * w_q) * rotate(n * w_k)).sum(-1)
    folded = rotate(q_hat * fold_key_weight(w_q, w_k, pairs))
    got = (folded * rebuild_keys(n, OneCopy(w_k, cos, sin), positions)).sum(-1)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_wrong_arguments_are_refused() -> None:
    case = decode_case(6, [20], heads=4, kv_heads=2, head_dim=32)
    with pytest.raises(ValueError, match=r"float32 elements; .* are needed"):
        paged_decode(**case, out=case["q"].clone(), config=DecodeConfig(tile=16, split_tokens=32))
    with pytest.raises(ValueError, match=r"page_table is torch\.int64"):
        run_decode(dict(case, page_table=case["page_table"].long()), DecodeConfig(tile=16))
    with pytest.raises(ValueError, match="value_cache is missing"):
        run_decode(dict(case, value_cache=None), DecodeConfig(tile=16))
    with pytest.raises(ValueError, match="tile is 24; it must be a power of two"):
        run_decode(case, DecodeConfig(tile=24))
    with pytest.raises(ValueError, match="does not fit"):
        run_decode(dict(case, q_len=2), DecodeConfig(tile=16))
