"""The display of `solve`: attempts, interrupts and traces that cannot be written (1 s)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.recorded_run import attempt_record

from eightfold.solver import Result, solver
from eightfold.solver.cli import main
from eightfold.solver.cli.commands.solve_command import (
    AttemptTrace,
    interrupt_text,
    print_attempt,
    print_result,
)


def record(index: int, answer: int | None, text: str, **changes: Any) -> dict[str, Any]:
    calls = [{"code": "1", "status": "ok", "output": f"output {index}"}]
    turns = [{"text": text, "calls": calls, "entropies": []}]
    return {**attempt_record(index, answer, 1.0), "turns": turns, **changes}


def result(*records: dict[str, Any], answer: int | None = None) -> Result:
    votes = {} if answer is None else {answer: 1}
    return Result(answer, votes, records, 1.0, 30, 1, 0, "all ended")


def test_without_an_answer_the_longest_attempt_and_the_reason_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = {"ending": "no valid answer", "detail": "wrote no \\boxed{}"}
    tries = (
        record(0, None, "short", **ended),
        record(1, None, "The answer is 381.", tokens=500, **ended),
        record(2, None, "", ending="engine failed"),
    )
    print_attempt(result(*tries))
    shown = capsys.readouterr().out
    assert "The answer is 381.\n--- output (ok):\noutput 1\n---\n" in shown
    assert "attempt 2, the longest: no valid answer (wrote no \\boxed{})" in shown
    assert "short" not in shown
    print_result(result(*tries), 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["answer: none", "votes: none"]
    assert (
        "  attempt 1: no valid answer (wrote no \\boxed{}), 2 calls, 0 errors, 10 tokens" in lines
    )


def test_with_an_answer_the_first_attempt_with_it_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = (record(0, 7, "wrong", tokens=900), record(1, 0, "first"), record(2, 0, "second"))
    print_attempt(result(*tries, answer=0))
    assert capsys.readouterr().out == "first\n--- output (ok):\noutput 1\n---\n"
    print_attempt(result())
    assert capsys.readouterr().out == "", "a result without any attempt"


def test_single_things_are_named_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result(record(0, 7, "", calls=1, errors=1, tokens=1), answer=7), 1.0)
    assert "attempt 1: answered 7, 1 call, 1 error, 1 token\n" in capsys.readouterr().out


def test_an_interrupt_tells_the_votes_so_far() -> None:
    ended = [record(0, 41, ""), record(1, 42, ""), record(2, 42, ""), record(3, None, "")]
    cut_off = record(4, 42, "", ending="interrupted")
    assert interrupt_text([*ended, cut_off], 8, 75.0) == (
        "Interrupted after 1:15; votes so far: 42 x 3, 41 x 1 (4 of 8 attempts had ended)."
    )
    assert interrupt_text([], 1, 2.0) == (
        "Interrupted after 2 s; votes so far: none (0 of 1 attempt had ended)."
    )


def test_a_second_interrupt_does_not_hide_the_votes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class InterruptedSolver(AbstractContextManager):
        on_gpu = False

        def __init__(self, *arguments: Any, **options: Any) -> None:
            pass

        def solve(self, text: str, on_attempt: Any, **options: Any) -> Result:
            on_attempt(record(0, 42, ""))
            raise KeyboardInterrupt

        def __exit__(self, *error: object) -> None:
            with ExitStack() as stack:  # which drops what was raised before
                stack.callback(signal.default_int_handler, signal.SIGINT, None)

    monkeypatch.setattr(solver, "Solver", InterruptedSolver)
    assert main(["solve", "--quiet", "--attempts", "2", "What is 6 times 7?"]) == 130
    said = "Interrupted after 0 s; votes so far: 42 x 1 (1 of 2 attempts had ended).\n"
    assert capsys.readouterr().err == said


def test_a_full_disk_is_told_once_with_the_path() -> None:
    trace = AttemptTrace("/dev/full")
    trace.clear()
    for index in range(8):
        trace.add(record(index, 1, "text"))
    trace.close()
    assert len(trace.records) == 8
    assert trace.error is not None
    assert (trace.error.filename, trace.error.strerror) == ("/dev/full", "No space left on device")


def test_a_trace_holds_a_line_for_each_attempt(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("of an earlier run\n")
    trace = AttemptTrace(str(path))
    assert path.read_text() == "of an earlier run\n", "kept until the model is loaded"
    trace.clear()
    tries = [record(index, 1, "\udcff") for index in range(3)]
    for one in tries:
        trace.add(one)
    trace.close()
    assert [json.loads(line)["attempt"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert AttemptTrace(None).error is None


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_told(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = f"exec {sys.executable} -m eightfold.solver.cli budget simulate --runs 4 >/dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == (
        "eightfold budget simulate: The output cannot be written: No space left on device.\n"
    )
