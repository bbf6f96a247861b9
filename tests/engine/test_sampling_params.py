"""Sampling parameters with a wrong type or value are refused."""

import pytest

from eightfold.engine import SamplingParams


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"seed": -1},
        {"seed": 2**64},
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"temperature": 1e-9},
        {"temperature": "hot"},
        {"temperature": None},
        {"top_k": 5.0},
        {"seed": None},
        {"pause_token_ids": 5},
        {"pause_token_ids": (5, "6")},
        {"stop_token_ids": (1.0,)},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        SamplingParams(**changes)


def test_a_token_cannot_both_pause_and_stop() -> None:
    with pytest.raises(ValueError, match="both pause and stop"):
        SamplingParams(pause_token_ids=(5,), stop_token_ids=(5, 6))
