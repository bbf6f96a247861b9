"""Confidence intervals and estimators for accuracies."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for a two-sided interval of 95 %."""


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, (0, 1) without trials.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    JASA 22 (1927), 209-212.

    Raises:
        ValueError: `successes` is not in 0..trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be in 0..{trials}, not {successes}.")
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    scale = 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Return an unbiased estimate of the chance that at least one of k attempts is right.

    With n attempts, c of them right, it is 1 - C(n-c, k)/C(n, k): M. Chen et al., "Evaluating
    Large Language Models Trained on Code", arXiv:2107.03374, equation 1.

    Raises:
        ValueError: `k` is not in 1..attempts, or `correct` is not in 0..attempts.
    """
    if not 1 <= k <= attempts or not 0 <= correct <= attempts:
        raise ValueError(
            f"pass@{k} needs 1 <= k <= {attempts} attempts and 0 <= correct <= {attempts}."
        )
    return 1 - math.comb(attempts - correct, k) / math.comb(attempts, k)


def normal_interval(values: Sequence[float], z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of the mean of many values by the central limit theorem.

    Args:
        values: at least two.
        z: quantile of the normal distribution; the default gives a 95 % interval.
    """
    mean = statistics.fmean(values)
    half = z * statistics.stdev(values, mean) / math.sqrt(len(values))
    return mean - half, mean + half


def bootstrap_interval(
    values: Sequence[float], rounds: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap percentile interval of the mean of `values`, (0, 1) without values.

    For means over problems whose values are not just 0 or 1, such as pass@k. B. Efron and R. J.
    Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        values: what is resampled with replacement.
        rounds: number of resampled means.
        seed: the same seed gives the same interval.
        level: share of the means that the interval holds.
    """
    if not values:
        return 0.0, 1.0
    rng = random.Random(seed)
    count = len(values)
    means = sorted(sum(rng.choices(values, k=count)) / count for _ in range(rounds))
    skip = int(rounds * (1 - level) / 2)
    return means[skip], means[rounds - 1 - skip]
