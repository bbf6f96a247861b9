"""Intervals and estimators for accuracies."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion (E. B. Wilson, JASA 22 (1927), 209-212); (0, 1) for no trials.

    Raises:
        ValueError: successes outside 0..trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be in 0..{trials}, not {successes}")
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    scale = 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k attempts is right: 1 - C(n-c, k)/C(n, k).

    M. Chen et al., "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, eq. 1.

    Raises:
        ValueError: k outside 1..attempts, or correct outside 0..attempts.
    """
    if not 1 <= k <= attempts or not 0 <= correct <= attempts:
        raise ValueError(f"pass@{k} needs 1 <= k <= {attempts} attempts and 0 <= correct <= that")
    return 1 - math.comb(attempts - correct, k) / math.comb(attempts, k)


def bootstrap(
    values: Sequence[float], rounds: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, resampled with replacement; (0, 1) for none.

    For means over problems whose values are no plain yes or no, such as pass@k. Efron, Tibshirani,
    "An Introduction to the Bootstrap" (1993), chapter 13. The same seed gives the same interval.
    """
    if not values:
        return 0.0, 1.0
    rng = random.Random(seed)
    count = len(values)
    means = sorted(sum(rng.choices(values, k=count)) / count for _ in range(rounds))
    skip = int(rounds * (1 - level) / 2)
    return means[skip], means[rounds - 1 - skip]
