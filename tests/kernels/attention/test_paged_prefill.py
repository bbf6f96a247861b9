"""Paged prefill attention against its float64 reference.

Takes about 15 seconds in Triton's interpreter.
"""

import pytest
import torch
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, DEVICE, relative_error
from helpers.kernel_cases.prefill_cases import prefill_case

from eightfold.kernels.attention.float64_reference import paged_prefill_reference
from eightfold.kernels.attention.paged_prefill import PrefillConfig, paged_prefill

CASES = {
    "whole prompts": ([37, 5], [37, 5], 4, 2, 32),
    "context before": ([20, 1, 33], [60, 40, 33], 4, 1, 64),
    "window": ([30, 9], [70, 9], 4, 2, 32, 24),
    "one copy": ([21, 40], [50, 40], 8, 2, 64, 0, 8),
    "odd dim": ([18], [30], 2, 2, 48),
}


@pytest.mark.parametrize("tile", [16, 32])
@pytest.mark.parametrize("name", CASES)
def test_matches_float64(name: str, tile: int) -> None:
    case = prefill_case(*CASES[name])
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(
        **case, out=out, config=PrefillConfig(query_rows=32, tile=tile, warps=4, stages=2)
    )
    assert relative_error(out, paged_prefill_reference(**case)) < ATTENTION_LIMIT


def test_sinks_take_weight_but_add_no_value() -> None:
    case = prefill_case([12, 7], [20, 7], 4, 2, 32)
    sinks = torch.tensor([0.5, 2.0, -1.0, 0.0], device=DEVICE)
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(**case, out=out, sinks=sinks, scale=0.3, config=PrefillConfig(32, 16, 4, 2))
    wanted = paged_prefill_reference(**case, sinks=sinks, scale=0.3)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


def test_capped_scores() -> None:
    case = prefill_case([12, 7], [20, 7], 4, 2, 32)
    options = {"scale": 0.5, "softcap": 2.0}
    out = torch.full_like(case["q"], float("nan"))
    paged_prefill(**case, out=out, config=PrefillConfig(32, 16, 4, 2), **options)
    wanted = paged_prefill_reference(**case, **options)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


def test_wrong_arguments_are_refused() -> None:
    case = prefill_case([5], [5], 4, 2, 32)
    with pytest.raises(ValueError, match="value_cache is missing"):
        paged_prefill(**{**case, "value_cache": None}, out=case["q"].clone())
    with pytest.raises(ValueError, match="query heads of a KV head need"):
        paged_prefill(**case, out=case["q"].clone(), config=PrefillConfig(query_rows=1))
    for wrong in (PrefillConfig(query_rows=48), PrefillConfig(tile=24)):
        with pytest.raises(ValueError, match="a power of two"):
            paged_prefill(**case, out=case["q"].clone(), config=wrong)
