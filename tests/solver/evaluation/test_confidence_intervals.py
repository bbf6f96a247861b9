"""Intervals and estimators (1 s)."""

from __future__ import annotations

import itertools
import math

import pytest

from eightfold.solver.evaluation.confidence_intervals import (
    bootstrap_interval,
    pass_at_k,
    wilson_interval,
)


def test_wilson_against_known_values() -> None:
    low, high = wilson_interval(9, 10)
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)
    assert wilson_interval(0, 10)[0] == 0.0
    assert round(wilson_interval(0, 10)[1], 4) == 0.2775
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(3, 2)


def test_pass_at_k_equals_enumeration() -> None:
    for n, c in ((5, 0), (5, 2), (6, 6), (8, 3)):
        right = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            sets = list(itertools.combinations(right, k))
            assert math.isclose(pass_at_k(n, c, k), sum(map(any, sets)) / len(sets))
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(4, 1, 5)


def test_bootstrap_brackets_the_mean() -> None:
    values = [float(i % 2) for i in range(200)]
    low, high = bootstrap_interval(values)
    assert 0.42 < low < 0.45
    assert 0.55 < high < 0.58
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([]) == (0.0, 1.0)
