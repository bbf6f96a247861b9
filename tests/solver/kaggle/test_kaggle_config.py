"""Settings that would break `predict` are refused (1 s)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from eightfold.solver import SolverError
from eightfold.solver.kaggle import KaggleConfig


@pytest.mark.parametrize(
    "fallback", [1.5, 0.0, "5", None, True, np.int64(5), [1], math.nan, -1, 100_000]
)
def test_a_fallback_that_is_not_a_valid_answer_is_refused(fallback: Any) -> None:
    with pytest.raises(SolverError, match="fallback must be an integer from 0 to 99999, not"):
        KaggleConfig(fallback=fallback)


@pytest.mark.parametrize("problems", [0, "50", 1.5, True, None, math.nan])
def test_problems_must_be_a_positive_integer(problems: Any) -> None:
    with pytest.raises(SolverError, match="problems must be an integer of at least 1, not"):
        KaggleConfig(problems=problems)
