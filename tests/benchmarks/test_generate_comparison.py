"""The solver against a loop over transformers' `generate`, with the bundled model (30 s)."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from eightfold.demo import model_path

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_both_sides_write_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    problem = {
        "id": "p",
        "problem": "What is the remainder when $5^{8985}$ is divided by 66?",
        "answer": 23,
    }
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(problem) + "\n", encoding="utf-8")
    # The time is counted from the start of the process, which runs other tests as well.
    options = [
        "--seconds",
        "900000",
        "--problems",
        "1",
        "--attempts",
        "3",
        "--parallel",
        "1",
        "--rows",
        "4",
    ]
    options += ["--max-tokens", "200", "--temperature", "1", "--top-p", "0.95", "--device", "cpu"]
    command = ["against_generate.py", str(model_path()), str(file), *options]
    monkeypatch.setattr(sys, "argv", command)
    assert importlib.import_module("against_generate").main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name, attempts in (("greedy", 1), ("sampled", 3)):
        part = found[name]
        assert part["cut off"] == 0
        assert part["attempts"] == attempts
        # The computations round alike, or a token is a tie.
        assert part["equal"] + part["first difference is a tie"] == attempts
        assert part["engine"]["pass@1"] == part["generate"]["pass@1"] or part["equal"] < attempts


def test_a_difference_is_found_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    comparison = importlib.import_module("support.accuracy.token_comparison")
    assert comparison.first_difference([1, 2, 3], [1, 2, 3, 4]) is None
    assert comparison.first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert comparison.Divergence(7, gap=0.25, step=0.125).tie
    assert not comparison.Divergence(7, gap=0.3, step=0.125).tie
    turns = [
        {"tokens": [5, 6], "replaced": True, "appended": [7]},
        {"tokens": [8], "replaced": False, "appended": []},
    ]
    assert comparison.conversation([1], {"turns": turns}) == [1, 5, 7, 8]
