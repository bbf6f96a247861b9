"""The time budget: its rule, its clock, and simulated runs (4 s)."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.time_budget import (
    PATTERNS,
    Budget,
    BudgetConfig,
    allotment,
    process_age,
    simulate,
)


def test_allotment_is_reserved_floored_and_capped() -> None:
    config = BudgetConfig(margin=0)
    assert allotment(18_000, 49, 0, config) == 900  # capped
    assert allotment(15_500, 49, 0, config) == 800
    assert allotment(14_700, 49, 0, config) == 60  # floored
    assert allotment(40, 0, 0, config) == 40  # never more than is left
    assert allotment(40, 0, 15, config) == 25
    assert allotment(-5, 3, 0, config) == 0


def test_invalid_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="cap"):
        BudgetConfig(cap=10, floor=20)
    for value in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="limit"):
            BudgetConfig(limit=value)
    with pytest.raises(ValueError, match="reserve"):
        BudgetConfig(reserve=math.nan)


def test_clock_starts_with_the_process() -> None:
    age = process_age()
    assert age > 0
    budget = Budget(BudgetConfig(limit=age + 1000, margin=0, cap=2000, floor=0))
    assert 0 < budget.left() <= 1000
    before = budget.grant(0)
    budget.record(granted=10, taken=14.5)
    assert budget.teardown == 4.5
    assert budget.grant(0) <= before - 4.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_simulated_run_exceeds_five_hours(pattern: str) -> None:
    """2,500 runs of 50 problems for each place of the hard problems, 10,000 in all."""
    rng = random.Random(pattern)
    config = BudgetConfig()
    fewest = config.cap
    for _ in range(2500):
        run = simulate(rng, pattern, config)
        assert len(run.granted) == 50
        assert run.total <= config.limit
        assert max(run.granted) <= config.cap
        fewest = min(fewest, *run.granted)
    # Even at the worst place every problem gets its reserve, less the teardowns seen.
    assert fewest >= 250


def test_simulation_follows_its_pattern() -> None:
    rng = random.Random(1)
    first, last = simulate(rng, "first").hard, simulate(rng, "last").hard
    assert first[0]
    assert not first[-1]
    assert list(first) == sorted(first, reverse=True)
    assert last[-1]
    assert not last[0]
    assert list(last) == sorted(last)
    assert all(simulate(rng, "everywhere").hard)
    with pytest.raises(ValueError, match="pattern"):
        simulate(rng, "nowhere")


@pytest.mark.parametrize(("reserve", "floor"), [(0, 60), (0, 900), (100, 600), (300, 400)])
def test_limit_holds_even_if_the_reserve_is_too_small(reserve: float, floor: float) -> None:
    """The first problems then use up the time of the last ones, which get less than the floor."""
    rng = random.Random(f"{reserve}/{floor}")
    config = BudgetConfig(reserve=reserve, floor=floor)
    fewest = config.cap
    for pattern in PATTERNS:
        for _ in range(200):
            run = simulate(rng, pattern, config)
            assert run.total <= config.limit
            fewest = min(fewest, *run.granted)
    assert fewest < floor


@given(
    st.floats(-100, 20_000),
    st.integers(0, 49),
    st.floats(0, 100),
    st.floats(0, 900),
    st.floats(0, 900),
)
def test_allotment_is_between_zero_and_the_time_left(
    left: float, after: int, teardown: float, reserve: float, floor: float
) -> None:
    config = BudgetConfig(reserve=reserve, floor=floor, margin=60)
    granted = allotment(left, after, teardown, config)
    room = left - 60 - teardown
    assert 0 <= granted <= max(0, room)
    assert granted <= config.cap
    assert granted >= min(room, floor)
    if floor <= room - reserve * after <= config.cap:
        assert granted == room - reserve * after


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("problems", range(1, 12))
def test_runs_of_few_problems_can_be_simulated(pattern: str, problems: int) -> None:
    run = simulate(random.Random(0), pattern, problems=problems)
    assert len(run.granted) == problems
    assert any(run.hard)
