"""The table of scores and the plots of a run (2 s)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.solver_cases.hostile_run import SETTINGS, attempt, plain_run, problem

from eightfold.solver.attempts.voting import RULES
from eightfold.solver.evaluation.run_reader import read_run
from eightfold.solver.report.run_figures import plots, score_rows, verdict


def test_the_table_has_a_row_for_each_way_to_score(tmp_path: Path) -> None:
    run = read_run(plain_run(tmp_path / "run"))
    rows = {row.name: row for row in score_rows(run, SETTINGS)}
    assert list(rows) == [
        "this run",
        "pass@1[avg-of-3]",
        *(f"{rule}@3" for rule in RULES),
        "pass@3",
    ]
    own = rows["this run"].score
    assert own is not None
    assert (own.value, own.count) == (0.5, 8)  # of 12 problems 8 have a known answer
    single = rows["pass@1[avg-of-3]"]
    assert single.score is not None
    assert single.score.value == pytest.approx((1 + 1 / 3) / 2)
    assert single.tokens.value == 200.0  # 100, 200 and 300 tokens
    assert rows["majority@3"].tokens.value == 600.0
    assert rows["majority@3"].errors.value == 1.0
    assert single.errors.value == pytest.approx(1 / 3)
    best = rows["pass@3"].score
    assert best is not None
    assert best.value == 1.0


def test_no_answer_counts_attempts_for_pass_and_votes_for_votes() -> None:
    run = [
        (problem("a", 1, 1), [attempt(0, 1), attempt(1, None)]),
        (problem("b", None, 1), [attempt(0, None), attempt(1, None)]),
    ]
    rows = {row.name: row.no_answer.value for row in score_rows(run, {})}
    assert rows["pass@1[avg-of-2]"] == 0.75
    assert rows["majority@2"] == 0.5


def test_every_plot_is_drawn_and_leads_to_its_problems(tmp_path: Path) -> None:
    run = read_run(plain_run(tmp_path / "run"))
    made = plots(run, SETTINGS, lambda index: f"#problem-{index}")
    assert [plot.title for plot in made] == [
        "Accuracy against the number of attempts",
        "Accuracy against early stop",
        "Tokens and seconds per problem",
        "When consensus was reached",
        "Errors by kind",
        "How attempts ended",
    ]
    for plot in made:
        ElementTree.fromstring(plot.svg)
    links = [one.attrib["href"] for one in ElementTree.fromstring(made[2].svg).iter("a")]
    assert links == [f"#problem-{index}" for index in range(12)]
    assert "12 of 12" in made[3].caption
    assert made[4].caption == "12 of 24 calls failed."


def test_a_run_without_known_answers_or_problems_has_what_is_possible(tmp_path: Path) -> None:
    run = [({**one, "truth": None}, tries) for one, tries in read_run(plain_run(tmp_path / "run"))]
    assert all(row.score is None for row in score_rows(run, {}))
    assert len(plots(run, {}, str)) == 4
    assert verdict(run[0][0]) == "unknown"
    assert score_rows([], {}) == plots([], {}, str) == []
    single = [(problem("p", 1, 1), [attempt(0, 1)])]
    assert plots(single, {}, str)[0].title == "Tokens and seconds per problem"
    assert score_rows(single, {})[1].name == "pass@1[avg-of-1]"
