"""Curves over the attempts of a run, against enumeration (1 s)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.recorded_run import attempt_record, record_run

from eightfold.solver.attempts.attempt_statistics import AttemptStatistics
from eightfold.solver.evaluation.run_curves import (
    decision_time,
    judged_attempts,
    largest_k,
    majority_curve,
    mean_amount,
    pass_curve,
    right_share,
    stop_curve,
)
from eightfold.solver.evaluation.run_reader import read_run


def made_run(*answers: list[int]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return a run whose right answers are 1, with an attempt for each given answer."""
    return [
        ({"truth": 1}, [attempt_record(i, value, float(i + 1)) for i, value in enumerate(row)])
        for row in answers
    ]


def test_majority_of_k_averages_over_the_sets_of_k_attempts() -> None:
    run = made_run([1, 1, 2], [2, 3, 1])
    values = [score.value for score in majority_curve(run)]
    # k = 2: {1,1}, {1,2}, {1,2} are right, the lowest index deciding ties; of the second problem's
    # sets {2,3}, {2,1}, {3,1} none is.
    assert values == pytest.approx([(2 / 3 + 1 / 3) / 2, (1 + 0) / 2, (1 + 0) / 2])
    assert [score.name for score in majority_curve(run)][2] == "majority@3"
    assert [score.value for score in pass_curve(run)] == pytest.approx([0.5, 5 / 6, 1.0])


def test_many_attempts_are_sampled_and_stay_close_to_the_true_share() -> None:
    tries = [AttemptStatistics(i, 1 if i < 18 else 2) for i in range(24)]
    share = right_share(tries, 1, 5, "majority")
    assert share == right_share(tries, 1, 5, "majority")
    assert 0.85 < share < 0.95  # hypergeometric: 0.9067, with 256 draws


def test_curves_end_where_a_problem_has_too_few_judged_attempts(tmp_path: Path) -> None:
    record_run(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert largest_k(run) == 2  # problems 4 and 5 have a cancelled attempt
    assert len(pass_curve(run)) == len(majority_curve(run)) == 2
    assert len(judged_attempts(run[4][1])) == 2
    assert largest_k([({"truth": None}, tries) for _, tries in run]) == 0
    assert pass_curve([]) == majority_curve([]) == stop_curve([], "majority") == []


def test_stops_trade_accuracy_for_time() -> None:
    points = stop_curve(made_run([2, 1, 1, 1]), "majority")
    assert [point.agree for point in points] == [1, 2, 3, 4, 0]
    assert [point.score.value for point in points] == [0.0, 1.0, 1.0, 1.0, 1.0]
    # At 3 and 4: after 3 of 4 attempts the leader can be reached but no more be overtaken.
    assert [point.seconds for point in points][:2] == [1.0, 3.0]
    assert points[-1].seconds == 4.0


def test_a_decision_needs_agreement_or_a_lead() -> None:
    tries = [AttemptStatistics(i, answer, ended=i + 1.0) for i, answer in enumerate([5, 7, 7, 8])]
    assert decision_time(tries, "majority", 2) == (3.0, True)
    assert decision_time(tries, "majority", 0) == (4.0, False)
    assert decision_time(tries[:2], "majority", 2) == (2.0, False)
    assert decision_time([], "majority", 2) == (0.0, False)
    # The last attempt may be the one that agrees.
    assert decision_time([*tries[:2], AttemptStatistics(2, 5, ended=9.0)], "majority", 2) == (
        9.0,
        True,
    )


def test_amounts_have_intervals_of_their_own_unit() -> None:
    mean = mean_amount([100.0, 200.0, 300.0, 400.0])
    assert mean.value == 250.0
    assert 100.0 <= mean.low < 250.0 < mean.high <= 400.0
    assert mean_amount([]).value is None
    assert mean_amount([0.0, 0.0]).high == 0.0
