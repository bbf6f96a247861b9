"""Two runs compared problem by problem (2 s)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from helpers.solver_cases.recorded_run import attempt_record

from eightfold.solver import SolverError
from eightfold.solver.evaluation.paired_runs import paired_p_value, paired_scores, shared_problems

Run = list[tuple[dict[str, Any], list[dict[str, Any]]]]


def made_run(answers: dict[str, list[int | None]], truth: int | None = 1) -> Run:
    return [
        (
            {"id": name, "truth": truth, "answer": row[0], "problem": name},
            [attempt_record(index, value, 1.0) for index, value in enumerate(row)],
        )
        for name, row in answers.items()
    ]


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1, 1, 1, 1, 1, 0, 0], 2 / 32), ([1, -1, 0], 1.0), ([0, 0], 1.0), ([], 1.0), ([1], 1.0)]
    + [([1] * 9 + [-1], 22 / 1024)],
)
def test_zero_and_one_give_mcnemars_exact_test(differences: list[float], p: float) -> None:
    assert paired_p_value(differences) == pytest.approx(p)
    assert paired_p_value([-value for value in differences]) == pytest.approx(p)


def test_other_differences_give_a_permutation_test() -> None:
    values = [0.5, 0.25, -0.125, 0.75, 0.5, 0.125, 0.0, 0.375]
    moved = [value for value in values if value]
    sums = [
        sum(s * value for s, value in zip(signs, moved, strict=True))
        for signs in itertools.product((1, -1), repeat=len(moved))
    ]
    exact = sum(abs(each) >= abs(sum(moved)) - 1e-9 for each in sums) / len(sums)
    assert paired_p_value(values) == pytest.approx(exact, abs=0.01)


def test_scores_are_paired_by_id() -> None:
    first = made_run({"a": [1, 1, 2], "b": [2, 2, 2], "c": [1, 1, 1]})
    second = made_run({"b": [1, 1, 2], "a": [1, 1, 1], "x": [1]})
    pairs = shared_problems(first, second)
    assert [one[0]["id"] for one, _ in pairs] == ["a", "b"]
    scores = {score.name: score for score in paired_scores(pairs)}
    assert (scores["as voted"].first, scores["as voted"].second) == (0.5, 1.0)
    assert scores["pass@1"].difference == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert scores["majority@3"].count == 2
    assert scores["majority@3"].low <= 0.5 <= scores["majority@3"].high


def test_runs_of_other_problems_are_refused() -> None:
    with pytest.raises(SolverError, match="no problem in common"):
        shared_problems(made_run({"a": [1]}), made_run({"b": [1]}))
    with pytest.raises(SolverError, match="'a' is not the same"):
        shared_problems(made_run({"a": [1]}), made_run({"a": [1]}, truth=2))
    unknown = made_run({"a": [1]}, truth=None)
    assert paired_scores(shared_problems(unknown, unknown)) == []
