"""Scores of a recorded run, and replayed votes (1 s)."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.solver_cases.recorded_run import SETTINGS, record_run

from eightfold.solver.attempts.attempt_statistics import AttemptStatistics
from eightfold.solver.evaluation.run_reader import read_run
from eightfold.solver.evaluation.run_scores import pass_score, replay_vote, summarize, vote_score


def test_scores_of_a_run(tmp_path: Path) -> None:
    record_run(tmp_path / "run")
    run = read_run(tmp_path / "run")
    summary = summarize(run, SETTINGS)
    # In problems 4 and 5 the only two votes tie; the first attempt's answer, the right one, wins.
    voted = vote_score(run, "majority")
    assert voted is not None
    assert voted.value == 1.0
    assert vote_score([({**problem, "truth": None}, tries) for problem, tries in run], "m") is None
    assert summary["families"]["even"] == {"right": 3, "problems": 3}
    assert summary["endings"] == {"answered": 16, "cancelled by consensus": 2}
    single = pass_score(run, 1)
    assert single is not None
    assert single.value == pytest.approx((4 * 2 / 3 + 2 * 1 / 2) / 6)
    assert single.low < single.value < single.high
    three = pass_score(run, 3)
    assert three is not None
    assert three.count == 4  # the problems of which no attempt was cancelled


def test_replay_takes_attempts_in_the_order_they_ended() -> None:
    statistics = [
        AttemptStatistics(0, 5, ended=9.0),
        AttemptStatistics(1, 7, ended=1.0),
        AttemptStatistics(2, 7, ended=2.0),
        AttemptStatistics(3, 5, ended=8.0),
        AttemptStatistics(4, 5, ended=7.0),
    ]
    assert replay_vote(statistics, "majority") == 5
    assert replay_vote(statistics, "majority", early_stop=2) == 7
    assert replay_vote(statistics, "majority", attempts=3) == 7
