"""Votes replayed on recorded attempts: on a file made here, and on real ones if they are at hand.

The real ones are 481 attempts at 45 problems by a model of 120b parameters. They may be measured
with but not copied, so they lie beside the checkout, if at all. (10 s)
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "traces" / "attempts.jsonl"


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("votes")


def attempt(problem: str, answer: int, right: bool, tokens: int, **counts: int) -> dict[str, Any]:
    zero = dict.fromkeys(("code_tokens", "tool_output_tokens", "calls", "errors", "timeouts"), 0)
    made = {"problem": problem, "answer": answer, "right": right, "generated_tokens": tokens}
    return {**zero, **made, **counts}


def figures(
    votes: Any, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, *options: str
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["votes.py", str(file), *options])
    assert votes.main() == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_figures_of_a_small_file(
    votes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = [attempt("clear", 5, True, 10 + i) for i in range(6)]
    rows += [attempt("clear", 6, False, 90) for _ in range(2)]
    # A tie between two answers, of which only the right one was computed.
    rows += [attempt("tied", 1, True, 20, calls=1, code_tokens=9) for _ in range(2)]
    rows += [attempt("tied", 2, False, 20) for _ in range(2)]
    rows += [attempt("lost", 3, False, 30) for _ in range(3)]
    file = tmp_path / "attempts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = figures(votes, file, monkeypatch, capsys, "--draws", "200")
    by_rule = {one["rule"]: one for one in found["rules"] + found["tried"]}
    assert found["problems"] == 3
    assert by_rule["majority"]["value"] == pytest.approx((1 + 0.5 + 0) / 3, abs=0.04)
    assert by_rule["more_code"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert by_rule["more_code"]["better"] == 1
    stops = {one["rule"]: one for one in found["early_stop"]}
    # "clear" ends at 13 tokens: 10 + 11 + 12 + 5 * 13 of 255; the others are awaited.
    expected = (98 / 255 + 1 + 1) / 3
    assert stops["more_code, stop at 4"]["tokens"] == pytest.approx(expected, abs=0.02)
    assert stops["more_code, stop at 4"]["gain"] == 0


def test_wrong_files_are_refused(
    votes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "other.jsonl").write_text('{"answer": 5}\n')
    for name, said in (("none.jsonl", "has no attempts"), ("other.jsonl", "has no 'problem'")):
        monkeypatch.setattr(sys, "argv", ["votes.py", str(tmp_path / name)])
        with pytest.raises(SystemExit) as ended:
            votes.main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_file(), reason="the recorded attempts are not at hand")
def test_the_default_is_not_below_the_majority_on_real_attempts(
    votes: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = figures(votes, REAL, monkeypatch, capsys, "--draws", "100")
    by_rule = {one["rule"]: one for one in found["rules"] + found["tried"]}
    assert (found["problems"], found["attempts"]) == (45, 481)
    assert by_rule["majority"]["value"] == pytest.approx(0.796, abs=0.015)
    assert by_rule["1 / (1 + errors)"]["value"] == pytest.approx(0.75, abs=0.02)
    assert by_rule[found["default"]]["value"] >= by_rule["majority"]["value"]
    stops = {one["rule"]: one for one in found["early_stop"]}
    four = stops[f"{found['default']}, stop at 4"]
    assert four["gain"] > -0.01
    assert 0.85 < four["tokens"] < 0.97
