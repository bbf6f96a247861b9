"""Warning marks of problems (1 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.solver_cases.hostile_run import attempt, call, problem, turn

from eightfold.solver.report.problem_warnings import problem_warnings, unread_answer


def kinds(record: dict[str, Any], *tries: dict[str, Any]) -> list[str]:
    return [mark.kind for mark in problem_warnings(record, list(tries))]


def test_a_vote_against_the_truth_is_marked_if_an_attempt_was_right() -> None:
    tries = [attempt(0, 2), attempt(1, 2), attempt(2, 1)]
    marks = problem_warnings(problem("p", 2, 1), tries)
    assert [mark.kind for mark in marks] == ["vote"]
    assert "attempt 3 had" in marks[0].reason
    assert kinds(problem("p", 2, 3), *tries) == []
    assert kinds(problem("p", 1, 1), *tries) == []
    assert kinds(problem("p", 2, None), *tries) == []


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("token limit", "limit"),
        ("context full", "limit"),
        ("time", "limit"),
        ("turns used up", "limit"),
        ("repeated failed calls", "limit"),
        ("engine failed", "fault"),
        ("sandbox failed", "fault"),
        ("solver fault", "fault"),
        ("engine refused", "fault"),
    ],
)
def test_limits_and_faults_are_marked(ending: str, kind: str) -> None:
    assert kinds(problem("p", 1, 1), attempt(0, 1, ending=ending)) == [kind]


@pytest.mark.parametrize(
    ("distance", "marked"), [(1.2, True), (1.0, False), (None, False), ("far", False)]
)
def test_problems_unlike_the_training_are_marked(distance: object, marked: bool) -> None:
    record = problem("p", 1, 1, distance=distance)
    assert kinds(record, attempt(0, 1)) == ["unfamiliar"] * marked


def test_faults_of_calls_and_of_the_solver_are_marked() -> None:
    dead = attempt(0, 1, turn("x", call("f()", "", "died", "died")))
    assert kinds(problem("p", 1, 1), dead) == ["fault"]
    assert kinds(problem("p", 1, 1, faults=["lost"]), attempt(0, 1)) == ["fault"]
    wrong = attempt(0, 1, turn("x", call("f()", "", "error", "ValueError")))
    assert kinds(problem("p", 1, 1), wrong) == []


@pytest.mark.parametrize(
    ("text", "truth", "unread"),
    [
        ("The answer is \\boxed{n + 1}.", None, True),
        ("The answer is 1,234.", 1234, True),
        ("The answer is 1234.", None, False),
        ("The answer is 12345.", 1234, False),
        ("It is 3.1234 or 1234.5.", 1234, False),
        ("<think>1234 and \\boxed{1}</think>I do not know.", 1234, False),
    ],
)
def test_an_answer_that_was_written_but_not_read(
    text: str, truth: int | None, unread: bool
) -> None:
    assert unread_answer(attempt(0, None, turn(text)), truth) is unread
    assert not unread_answer(attempt(0, 7, turn(text)), truth)
    cut = attempt(0, None, turn(text), ending="cancelled by consensus")
    assert not unread_answer(cut, truth)
