"""Traces, resuming, replay and the command line (4 s)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from eightfold.solver import SolverConfig, SolverError
from eightfold.solver.attempts.attempt_statistics import AttemptStatistics
from eightfold.solver.attempts.engine_loop import EngineLostError
from eightfold.solver.chat.prompt_texts import prompts_for
from eightfold.solver.cli.command_line import main, make_parser
from eightfold.solver.cli.commands.evaluate_command import run_settings
from eightfold.solver.evaluation.evaluation_run import Evaluation
from eightfold.solver.evaluation.run_folder import RunFolder, read_lines, read_run, statistics_of
from eightfold.solver.evaluation.run_scores import pass_score, replay_vote, summarize, vote_score
from eightfold.solver.model_defaults import sampling_values
from eightfold.solver.problem_set import Problem
from eightfold.solver.progress_display import ProgressDisplay
from eightfold.solver.solver import Result
from eightfold.solver.time_budget import Budget, BudgetConfig


def attempt(index: int, answer: int | None, ended: float, **more: Any) -> dict[str, Any]:
    record = {
        "attempt": index,
        "seed": index,
        "ending": "answered" if answer is not None else "cancelled by consensus",
        "detail": "",
        "answer": answer,
        "tokens": 10,
        "calls": 2,
        "errors": 0,
        "error_kinds": [],
        "entropy": 1.0,
        "ended": ended,
        "turns": [{"entropies": [0.2, 0.4]}],
    }
    return record | more


class Answers:
    """In a solver's place: gives each problem the answers listed, or raises what is listed."""

    def __init__(self, table: dict[str, list[int | None]], before: Callable[[str], None]) -> None:
        self.table = table
        self.before = before
        self.config = SolverConfig(time=100)
        self.alive = True
        self.solved: list[str] = []
        self.granted: list[float] = []

    def solve_or_nothing(self, text: str, **options: Any) -> Result:
        self.before(text)
        self.solved.append(text)
        self.granted.append(options["seconds"])
        records = [attempt(i, a, float(i)) for i, a in enumerate(self.table[text])]
        for record in records:
            options["on_attempt"](record)
        counts: dict[int, int] = {}
        for value in self.table[text]:
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        best = max(counts, key=lambda value: counts[value], default=None)
        return Result(best, counts, tuple(records), 1.0, 10, 2, 0, "all ended")


PROBLEMS = [Problem(f"p{i}", f"text {i}", i, "even" if i % 2 == 0 else "odd") for i in range(6)]
TABLE: dict[str, list[int | None]] = {
    f"text {i}": [i, i + 1, i if i < 4 else None] for i in range(6)
}
SETTINGS = {"attempts": 3, "seed": 0}


def evaluate(
    folder: Path, before: Callable[[str], None] = lambda text: None, **options: Any
) -> tuple[Answers, Evaluation]:
    run = RunFolder(folder, SETTINGS, resume=True)
    solver = Answers(TABLE, before)
    evaluation = Evaluation(solver, PROBLEMS, run, **options)
    try:
        evaluation.run(ProgressDisplay(StringIO(), enabled=False))
    finally:
        run.close()
    return solver, evaluation


def test_every_problem_and_attempt_is_recorded(tmp_path: Path) -> None:
    _, evaluation = evaluate(tmp_path / "run", parallel=3)
    run = read_run(tmp_path / "run")
    assert sorted(problem["id"] for problem, _ in run) == [f"p{i}" for i in range(6)]
    assert all([one["attempt"] for one in tries] == [0, 1, 2] for _, tries in run)
    assert evaluation.status().startswith("6/6 problems | ")
    assert evaluation.known == 6


def test_killed_and_resumed_repeats_nothing_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def die(text: str) -> None:
        if text == "text 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, die)
    # As a kill leaves it: an unfinished problem's attempt, and a line cut off in each file.
    with (folder / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "p3", "round": 1, **attempt(0, 77, 1.0)}) + "\n")
        file.write('{"id": "p3", "attempt": 1, "tex')
    with (folder / "problems.jsonl").open("a") as file:
        file.write('{"id": "p3", "answ')
    solver, _ = evaluate(folder)
    assert solver.solved == ["text 3", "text 4", "text 5"]
    run = {problem["id"]: tries for problem, tries in read_run(folder)}
    assert len(run) == 6
    assert [one["answer"] for one in run["p3"]] == [3, 4, 3]
    solver, _ = evaluate(folder)
    assert solver.solved == []


def test_problem_cut_off_by_a_dead_engine_is_not_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = RunFolder(folder, SETTINGS, resume=True)
    solver = Answers(TABLE, lambda text: None)
    solver.before = lambda text: setattr(solver, "alive", text != "text 2")
    with pytest.raises(EngineLostError, match="p2"):
        Evaluation(solver, PROBLEMS, run).run(ProgressDisplay(StringIO(), enabled=False))
    run.close()
    assert [problem["id"] for problem, _ in read_run(folder)] == ["p0", "p1"]


def test_problem_cut_off_by_an_interrupt_is_not_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go_on = threading.Event()

    class Interrupted(ProgressDisplay):
        def update(self, text: str) -> None:
            raise KeyboardInterrupt

    run = RunFolder(folder, SETTINGS, resume=True)
    evaluation = Evaluation(Answers(TABLE, lambda text: go_on.wait(100) and None), PROBLEMS, run)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(Interrupted(StringIO(), enabled=False))
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("problem-"):
            thread.join(100)
    run.close()
    assert list(read_lines(folder / "problems.jsonl")) == []


def test_a_run_is_not_mixed_with_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", SETTINGS, resume=False)
    with pytest.raises(SolverError, match="still in progress"):
        RunFolder(tmp_path / "run", SETTINGS, resume=True)
    run.begin()
    run.close()
    with pytest.raises(SolverError, match="--resume"):
        RunFolder(tmp_path / "run", SETTINGS, resume=False)
    with pytest.raises(SolverError, match="seed = 0, not 1"):
        RunFolder(tmp_path / "run", SETTINGS | {"seed": 1}, resume=True)
    with pytest.raises(SolverError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{}\n[]\n{}\n")
    with pytest.raises(SolverError, match="Line 2"):
        list(read_lines(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("problems", b"\xff\xfe\n", "Line 7 of .*problems.jsonl is not JSON"),
        ("problems", b"{}\n", "Line 7 of .*problems.jsonl has no 'id'"),
        ("attempts", b'"calls": 2}\n', "Line 19 of .*attempts.jsonl is not JSON"),
        ("attempts", None, "lacks attempts at problem 'p0'; remove its line"),
    ],
)
def test_damaged_traces_are_named_and_not_voted_on(
    name: str, damage: bytes | None, said: str, tmp_path: Path
) -> None:
    evaluate(tmp_path / "run")
    file = tmp_path / "run" / f"{name}.jsonl"
    file.write_bytes(file.read_bytes() + damage if damage else b"")
    with pytest.raises(SolverError, match=said):
        read_run(tmp_path / "run")


def test_a_folder_becomes_a_run_when_work_begins(tmp_path: Path) -> None:
    """A model that cannot be loaded must not block the folder for the next try."""
    run = RunFolder(tmp_path / "new" / "run", SETTINGS, resume=False)
    run.close()
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SolverError, match="cannot be made: File exists"):
        RunFolder(tmp_path / "file", SETTINGS, resume=False)
    evaluate(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SolverError, match=r"problems but no run\.json"):
        RunFolder(tmp_path / "run", SETTINGS, resume=True)


def test_settings_of_a_run_hold_all_that_changes_its_results(tmp_path: Path) -> None:
    def settings(*words: str) -> dict[str, Any]:
        options = make_parser().parse_args(["evaluate", "p.csv", "--out", "r", *words])
        prompts = prompts_for(None, options.prompts)
        return run_settings(options, "digest", prompts)

    (tmp_path / "p.toml").write_text("nudge = 'Now.'")
    plain = settings()
    same = ("--parallel 3", "--kernels 9", "--quiet", "--json", "--resume")
    assert all(settings(*words.split()) == plain for words in same)
    others = (
        "--attempts 3|--early-stop 1|--turns 2|--time 5|--seed 1|--temperature 1|--top-p 1|"
        "--top-k 5|--min-p 0.1|--rule majority|--tool-timeout 2|--max-tokens 9|--max-context 99|"
        f"--limit-time 99|--model x|--prompts {tmp_path / 'p.toml'}"
    ).split("|")
    assert all(settings(*words.split()) != plain for words in others)


def test_budget_grants_and_stops(tmp_path: Path) -> None:
    budget = Budget(BudgetConfig(limit=1000, reserve=100, cap=300, margin=0), spent_before=0.0)
    solver, _ = evaluate(tmp_path / "run", budget=budget)
    assert solver.granted == [100.0] * 6  # bounded by the time of one problem
    late = Budget(BudgetConfig(limit=1000, margin=0), spent_before=1000.0)
    solver, evaluation = evaluate(tmp_path / "late", budget=late)
    assert solver.solved == []
    assert evaluation.out_of_time


def test_parallel_problems_overlap(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=100)
    evaluate(tmp_path / "run", lambda text: both.wait() and None, parallel=2)
    assert not both.broken


def test_scores_of_a_run(tmp_path: Path) -> None:
    evaluate(tmp_path / "run")
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
    assert three.count == 4  # where none of the three was cancelled
    assert statistics_of(run[0][1][0], tail=1).entropy == 0.4


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


def test_replay_command_shows_all_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(tmp_path / "run")
    assert main(["replay", str(tmp_path / "run"), "--json"]) == 0
    out = capsys.readouterr().out
    for name in ("majority", "fewer_errors", "entropy", "errors_then_entropy", "pass@1", "pass@3"):
        assert f"  {name} " in out
    table = json.loads(out.splitlines()[-1])
    assert {row["name"]: row["value"] for row in table}["majority"] == 1.0
    assert main(["replay", str(tmp_path / "run"), "--rule", "entropy", "--attempts", "2"]) == 0
    assert "majority" not in capsys.readouterr().out


def test_sampling_values_come_from_user_then_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 64, "temperature": 0.7}')
    values = sampling_values(tmp_path, SolverConfig(temperature=0.5))
    assert values == {"temperature": 0.5, "top_p": 1.0, "top_k": 64, "min_p": 0.0}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(SolverError, match="not valid JSON"):
        sampling_values(tmp_path, SolverConfig())


def test_budget_simulation_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "simulate", "--runs", "400"]) == 0
    out = capsys.readouterr().out
    assert "never exceeded" in out
    assert [line.split()[0] for line in out.splitlines()[2:6]] == [
        "first",
        "last",
        "everywhere",
        "shuffled",
    ]


def test_help_and_version_import_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from eightfold.solver.cli.command_line import main; main(['solve', '--help']);"
        "main(['solve', 'x', '--attempts', '0']);"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'zmq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("eightfold ")


def test_doctor_is_handed_its_option_and_its_code_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    from eightfold.sandbox import doctor

    seen: list[list[str]] = []
    monkeypatch.setattr(doctor, "main", lambda argv: seen.append(argv) or 1)
    assert main(["sandbox", "doctor", "--json"]) == 1
    assert main(["sandbox", "doctor"]) == 1
    assert seen == [["--json"], []]
