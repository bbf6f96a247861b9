"""Votes, early stops, intervals and budgets (3 s)."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.budget import (
    PATTERNS,
    Budget,
    BudgetConfig,
    allotment,
    process_age,
    simulate,
)
from eightfold.solver.signals import Signals, tail_entropy
from eightfold.solver.statistics import bootstrap, pass_at_k, wilson
from eightfold.solver.vote import CEILING, RULES, decided, vote


def signals(*answers: int | None) -> list[Signals]:
    return [Signals(index, answer) for index, answer in enumerate(answers)]


@pytest.mark.parametrize("rule", RULES)
def test_more_votes_win_where_all_else_is_equal(rule: str) -> None:
    outcome = vote(signals(7, 5, None, 5), rule)
    assert outcome.answer == 5
    assert outcome.votes == {5: 2, 7: 1}
    assert vote(signals(None, None), rule).answer is None


@given(st.permutations(range(6)))
def test_order_of_arrival_does_not_matter(order: list[int]) -> None:
    made = [Signals(i, [4, 9, 4, 9, 2, None][i], calls=i + 1, errors=i % 2) for i in range(6)]
    for rule in RULES:
        assert vote([made[i] for i in order], rule) == vote(made, rule)


def test_ties_go_to_votes_then_errors_then_index() -> None:
    assert vote(signals(9, 4), "majority").answer == 9
    made = [Signals(0, 9, calls=4, errors=2), Signals(1, 4, calls=4, errors=1)]
    assert vote(made, "majority").answer == 4
    # 1/H: one attempt at 0.5 nats against two at 1 nat tie in score, two votes win.
    made = [Signals(0, 9, entropy=0.5), Signals(1, 4, entropy=1.0), Signals(2, 4, entropy=1.0)]
    assert vote(made, "entropy").answer == 4


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_error_weight_is_monotone_in_errors_per_call(a: int, b: int, calls: int) -> None:
    weights = [
        RULES["fewer_errors"]([Signals(0, 1, calls=calls, errors=min(e, calls))])[0] for e in (a, b)
    ]
    if a <= b:
        assert weights[0] >= weights[1]
    assert all(7 / 8 <= weight <= 1 for weight in weights)


def test_eight_attempts_votes_come_before_errors() -> None:
    for more in range(1, 5):
        worst = [Signals(i, 1, calls=3, errors=3) for i in range(more)]
        best = [Signals(9 + i, 2, calls=3) for i in range(more - 1)]
        assert vote(worst + best, "fewer_errors").answer == 1
    tied = [Signals(0, 1, calls=3, errors=1), Signals(1, 2, calls=3, errors=0)]
    assert vote(tied, "fewer_errors").answer == 2


def test_entropy_weighs_certain_attempts_more_and_is_floored() -> None:
    made = [Signals(0, 1, entropy=0.3), Signals(1, 2, entropy=1.0), Signals(2, 2, entropy=1.0)]
    assert vote(made, "entropy").answer == 1
    assert RULES["entropy"]([Signals(0, 1, entropy=1e-9)]) == (10.0,)


def test_errors_then_entropy_orders_its_criteria() -> None:
    made = [
        Signals(0, 1, calls=2, errors=1, entropy=0.1),
        Signals(1, 2, calls=2, errors=0, entropy=2.0),
        Signals(2, 3, calls=2, errors=0, entropy=1.0),
    ]
    assert vote(made, "errors_then_entropy").answer == 3


def test_stop_at_agreement_and_at_uncatchable_lead() -> None:
    assert decided(signals(1, 1, 1), 5, 4, "majority") is None
    assert decided(signals(1, 1, 1, 1), 4, 4, "majority") == "agreement"
    assert decided(signals(1, 1, 1, 2, 3), 1, 4, "majority") == "lead"
    assert decided(signals(1, 1, 1, 2, 3), 2, 4, "majority") is None
    assert decided(signals(1, 1, 2), 1, 4, "majority") is None
    assert decided(signals(1, 1, 1, 1), 4, 0, "majority") is None
    assert decided(signals(None, None), 1, 4, "majority") is None
    assert decided(signals(1, 1, 1, 1), 0, 4, "majority") is None


@given(
    st.lists(st.sampled_from([1, 2, None]), min_size=1, max_size=5),
    st.lists(st.sampled_from([1, 2, 3, None]), min_size=1, max_size=3),
    st.sampled_from(sorted(RULES)),
    st.randoms(use_true_random=False),
)
def test_a_lead_that_stops_is_never_overtaken(
    done: list[int | None], late: list[int | None], rule: str, rng: random.Random
) -> None:
    def make(index: int, answer: int | None) -> Signals:
        return Signals(index, answer, 4, rng.randint(0, 4), rng.uniform(0, 3))

    first = [make(i, answer) for i, answer in enumerate(done)]
    if decided(first, len(late), 99, rule) == "lead":
        rest = [make(10 + i, answer) for i, answer in enumerate(late)]
        assert vote(first + rest, rule).answer == vote(first, rule).answer


def test_ceilings_bound_every_rule() -> None:
    for rule, calls, errors, entropy in itertools.product(RULES, (0, 4), (0, 4), (None, 0.0, 3.0)):
        score = RULES[rule]([Signals(0, 1, calls, min(errors, calls), entropy)])
        assert score[0] <= CEILING[rule]


def test_tail_entropy() -> None:
    assert tail_entropy([5.0, 1.0, 3.0], tail=2) == 2.0
    assert tail_entropy([]) is None


def test_wilson_against_known_values() -> None:
    low, high = wilson(9, 10)
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)
    assert wilson(0, 10)[0] == 0.0
    assert round(wilson(0, 10)[1], 4) == 0.2775
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


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
    low, high = bootstrap(values)
    assert 0.42 < low < 0.45
    assert 0.55 < high < 0.58
    assert bootstrap(values) == (low, high)
    assert bootstrap([]) == (0.0, 1.0)


def test_budget_rule() -> None:
    config = BudgetConfig(margin=0)
    assert allotment(18_000, 49, 0, config) == 900  # capped
    assert allotment(15_500, 49, 0, config) == 800
    assert allotment(14_700, 49, 0, config) == 60  # floored
    assert allotment(40, 0, 0, config) == 40  # never more than there is
    assert allotment(40, 0, 15, config) == 25
    assert allotment(-5, 3, 0, config) == 0


def test_bad_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="cap"):
        BudgetConfig(cap=10, floor=20)
    with pytest.raises(ValueError, match="limit"):
        BudgetConfig(limit=0)


def test_clock_counts_from_the_start_of_the_process() -> None:
    age = process_age()
    assert age > 0
    budget = Budget(BudgetConfig(limit=age + 1000, margin=0, cap=2000, floor=0))
    assert 0 < budget.left() <= 1000
    before = budget.grant(0)
    budget.record(granted=10, taken=14.5)
    assert budget.teardown == 4.5
    assert budget.grant(0) <= before - 4.5
    assert time.monotonic() > 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_simulated_run_passes_five_hours(pattern: str) -> None:
    """2,500 runs for each place of the hard problems: 10,000 of 50 problems."""
    rng = random.Random(pattern)
    config = BudgetConfig()
    fewest = config.cap
    for _ in range(2500):
        run = simulate(rng, pattern, config)
        assert len(run.granted) == 50
        assert run.total <= config.limit
        assert max(run.granted) <= config.cap
        fewest = min(fewest, *run.granted)
    # Even at the worst place every problem gets its reserve less the tear-downs seen.
    assert fewest >= 250


def test_simulation_has_the_pattern_it_names() -> None:
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
