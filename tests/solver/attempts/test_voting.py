"""Votes and early stops (2 s)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.solver.attempts.attempt_statistics import AttemptStatistics, tail_entropy
from eightfold.solver.attempts.voting import (
    MAX_WEIGHT,
    RULES,
    RuleScore,
    early_stop_reason,
    vote,
)


def attempts(*answers: int | None) -> list[AttemptStatistics]:
    return [AttemptStatistics(index, answer) for index, answer in enumerate(answers)]


def stop(
    ended: list[AttemptStatistics], running: int, agree: int, rule: str = "majority"
) -> str | None:
    return early_stop_reason(vote(ended, rule), running, agree)


@pytest.mark.parametrize("rule", RULES)
def test_more_votes_win_if_all_else_is_equal(rule: str) -> None:
    outcome = vote(attempts(7, 5, None, 5), rule)
    assert outcome.answer == 5
    assert outcome.votes == {5: 2, 7: 1}
    assert vote(attempts(None, None), rule).answer is None


@given(st.permutations(range(6)))
def test_order_of_arrival_does_not_matter(order: list[int]) -> None:
    made = [
        AttemptStatistics(i, [4, 9, 4, 9, 2, None][i], calls=i + 1, errors=i % 2) for i in range(6)
    ]
    for rule in RULES:
        assert vote([made[i] for i in order], rule) == vote(made, rule)


def test_ties_are_decided_by_votes_then_index() -> None:
    assert vote(attempts(9, 4), "majority").answer == 9
    made = [AttemptStatistics(0, 9, calls=4, errors=2), AttemptStatistics(1, 4, calls=4, errors=1)]
    assert vote(made, "majority").answer == 9
    # 1/H: one attempt at 0.5 nats against two at 1 nat tie in score, two votes win.
    made = [
        AttemptStatistics(0, 9, entropy=0.5),
        AttemptStatistics(1, 4, entropy=1.0),
        AttemptStatistics(2, 4, entropy=1.0),
    ]
    assert vote(made, "entropy").answer == 4


def test_code_decides_between_equal_votes_only() -> None:
    argued = [AttemptStatistics(i, 9) for i in range(2)]
    computed = [AttemptStatistics(2, 4, calls=1, code=30), AttemptStatistics(3, 4)]
    assert vote(argued + computed, "more_code").answer == 4
    assert vote([*argued, AttemptStatistics(4, 9), *computed], "more_code").answer == 9
    # The mean counts: one long program does not outweigh two of some length.
    longer = [AttemptStatistics(0, 9, code=40), AttemptStatistics(1, 9, code=40)]
    shorter = [AttemptStatistics(2, 4, code=70), AttemptStatistics(3, 4)]
    assert vote(longer + shorter, "more_code").answer == 9


def test_a_rule_may_be_a_function() -> None:
    def least(supporters: Sequence[AttemptStatistics]) -> RuleScore:
        return (-float(len(supporters)),)

    outcome = vote(attempts(1, 1, 2), least)
    assert (outcome.answer, outcome.rule) == (2, "least")


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 99), min_size=8))
def test_code_never_overrules_a_majority(answers: list[int], code: list[int]) -> None:
    made = [AttemptStatistics(i, answer, code=code[i]) for i, answer in enumerate(answers)]
    counts = sorted(vote(made, "majority").votes.values())
    if len(counts) == 1 or (counts and counts[-1] > counts[-2]):
        assert vote(made, "more_code").answer == vote(made, "majority").answer


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_weight_never_grows_with_errors_per_call(a: int, b: int, calls: int) -> None:
    weights = [
        RULES["fewer_errors"]([AttemptStatistics(0, 1, calls=calls, errors=min(e, calls))])[0]
        for e in (a, b)
    ]
    if a <= b:
        assert weights[0] >= weights[1]
    assert all(7 / 8 <= weight <= 1 for weight in weights)


def test_with_eight_attempts_votes_count_before_errors() -> None:
    for more in range(1, 5):
        worst = [AttemptStatistics(i, 1, calls=3, errors=3) for i in range(more)]
        best = [AttemptStatistics(9 + i, 2, calls=3) for i in range(more - 1)]
        assert vote(worst + best, "fewer_errors").answer == 1
    tied = [AttemptStatistics(0, 1, calls=3, errors=1), AttemptStatistics(1, 2, calls=3, errors=0)]
    assert vote(tied, "fewer_errors").answer == 2


def test_entropy_favors_certain_attempts_down_to_a_floor() -> None:
    made = [
        AttemptStatistics(0, 1, entropy=0.3),
        AttemptStatistics(1, 2, entropy=1.0),
        AttemptStatistics(2, 2, entropy=1.0),
    ]
    assert vote(made, "entropy").answer == 1
    assert RULES["entropy"]([AttemptStatistics(0, 1, entropy=1e-9)]) == (10.0,)


def test_errors_then_entropy_compares_errors_first() -> None:
    made = [
        AttemptStatistics(0, 1, calls=2, errors=1, entropy=0.1),
        AttemptStatistics(1, 2, calls=2, errors=0, entropy=2.0),
        AttemptStatistics(2, 3, calls=2, errors=0, entropy=1.0),
    ]
    assert vote(made, "errors_then_entropy").answer == 3


def test_stops_at_an_agreement_and_at_an_uncatchable_lead() -> None:
    assert stop(attempts(1, 1, 1), 5, 4) is None
    assert stop(attempts(1, 1, 1, 1), 4, 4) == "agreement"
    assert stop(attempts(1, 1, 1, 2, 3), 1, 4) == "lead"
    assert stop(attempts(1, 1, 1, 2, 3), 2, 4) is None
    assert stop(attempts(1, 1, 2), 1, 4) is None
    assert stop(attempts(1, 1, 1, 1), 4, 0) is None
    assert stop(attempts(None, None), 1, 4) is None
    assert stop(attempts(1, 1, 1, 1), 0, 4) is None


def test_agreement_counts_only_if_the_rule_puts_it_first() -> None:
    sure = AttemptStatistics(9, 5, entropy=0.1)
    unsure = [AttemptStatistics(i, 7, entropy=3.0) for i in range(4)]
    assert vote([sure, *unsure], "entropy").answer == 5
    assert stop([sure, *unsure], 3, 4, "entropy") is None
    assert stop([sure, *unsure], 3, 4, "majority") == "agreement"


@given(st.lists(st.sampled_from([1, 2, 3, None]), max_size=8), st.sampled_from(sorted(RULES)))
def test_agreed_answer_wins_the_vote(answers: list[int | None], rule: str) -> None:
    made = [AttemptStatistics(i, a, 3, i % 4, 0.1 + i % 3) for i, a in enumerate(answers)]
    outcome = vote(made, rule)
    if early_stop_reason(outcome, 1, 3) == "agreement":
        assert outcome.answer is not None
        assert answers.count(outcome.answer) >= 3


@given(
    st.lists(st.sampled_from([1, 2, None]), min_size=1, max_size=5),
    st.lists(st.sampled_from([1, 2, 3, None]), min_size=1, max_size=3),
    st.sampled_from(sorted(RULES)),
    st.randoms(use_true_random=False),
)
def test_a_lead_that_stops_a_problem_is_never_overtaken(
    done: list[int | None], late: list[int | None], rule: str, rng: random.Random
) -> None:
    def make(index: int, answer: int | None) -> AttemptStatistics:
        return AttemptStatistics(index, answer, 4, rng.randint(0, 4), rng.uniform(0, 3))

    first = [make(i, answer) for i, answer in enumerate(done)]
    if stop(first, len(late), 99, rule) == "lead":
        rest = [make(10 + i, answer) for i, answer in enumerate(late)]
        assert vote(first + rest, rule).answer == vote(first, rule).answer


def test_no_attempt_weighs_more_than_the_maximum() -> None:
    for rule, calls, errors, entropy in itertools.product(RULES, (0, 4), (0, 4), (None, 0.0, 3.0)):
        score = RULES[rule]([AttemptStatistics(0, 1, calls, min(errors, calls), entropy)])
        assert score[0] <= MAX_WEIGHT[rule]


def test_tail_entropy_is_the_mean_of_the_last_tokens() -> None:
    assert tail_entropy([5.0, 1.0, 3.0], tail=2) == 2.0
    assert tail_entropy([]) is None
