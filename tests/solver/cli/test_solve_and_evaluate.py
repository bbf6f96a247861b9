"""`solve` and `evaluate` with the bundled model, a real engine and real kernels (60 s)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eightfold.demo.problems import take
from eightfold.solver.cli import main
from eightfold.solver.evaluation.run_reader import read_lines, read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]

EIGHTFOLD = [sys.executable, "-m", "eightfold.solver.cli"]


def test_the_bundled_model_solves_with_real_kernels(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    words = ["solve", "What is the remainder when 7^123 is divided by 1000?", "--attempts", "2"]
    options = ["--json", "--time", "200", "--trace", str(trace), "--early-stop", "0", "--show"]
    done = subprocess.run(
        [*EIGHTFOLD, *words, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert {"answer", "votes", "attempts", "seconds", "tokens"} <= last.keys()
    assert (last["answer"] is None) == (done.returncode == 1)
    assert last["calls"] > 0
    calls = [c for r in read_lines(trace) for turn in r["turns"] for c in turn["calls"]]
    assert len(calls) == last["calls"]
    assert any(call["status"] == "ok" and call["output"].strip() for call in calls)
    if last["answer"] is not None:
        right = next(r for r in last["attempts"] if r["answer"] == last["answer"])["attempt"]
        shown = next(r for r in read_lines(trace) if r["attempt"] == right)
        for turn in shown["turns"]:
            assert turn["text"] in done.stdout
            assert all(call["output"] in done.stdout for call in turn["calls"])


def finished(folder: Path) -> list[dict[str, Any]]:
    return list(read_lines(folder / "problems.jsonl"))


def test_a_killed_evaluation_resumes_without_repeating_or_losing_problems(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    problems = take("held_out", 6, 0, plain=True)
    table = tmp_path / "p.jsonl"
    keys = ("id", "problem", "answer", "family")
    table.write_text(
        "".join(json.dumps({key: getattr(one, key) for key in keys}) + "\n" for one in problems)
    )
    folder = tmp_path / "run"
    words = ["evaluate", str(table), "--out", str(folder), "--attempts", "2", "--early-stop", "0"]
    run = subprocess.Popen([*EIGHTFOLD, *words, "--quiet"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not finished(folder):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = finished(folder)
    assert len(before) < 6, "it was killed before its end"
    for name in ("problems", "attempts"):  # as if the kill came in the middle of a line
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write('{"id": "' + problems[5].id + '", "round": 1, "ans')
    assert main([*words, "--quiet", "--resume", "--json"]) == 0
    after = finished(folder)
    assert after[: len(before)] == before
    assert sorted(one["id"] for one in after) == sorted(one.id for one in problems)
    assert all([one["attempt"] for one in tries] == [0, 1] for _, tries in read_run(folder))
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert summary["problems"] == 6
    assert summary["scores"].keys() == {"accuracy", "pass@1", "pass@2"}
    assert main([*words, "--quiet", "--resume"]) == 0, "everything is done, so no model is loaded"
    assert finished(folder) == after
    assert main(["report", str(folder)]) == 0, "what real attempts record can be shown"
    assert main(["export", str(folder), "--to", "sft", "--all"]) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_all_its_processes(sent: signal.Signals) -> None:
    words = ["solve", "Think for long.", "--early-stop", "0", "--time", "200", "--kernels", "2"]
    run = subprocess.Popen([*EIGHTFOLD, *words], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    while not (line := run.stderr.readline()).startswith("ready after"):
        assert line, "the command ended before it was ready"
    below = descendants(run.pid)
    assert len(below) >= 3, "two kernels and the process that starts them"
    run.send_signal(sent)
    said = run.communicate(timeout=100)[1]
    assert run.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in said
    assert ("; votes so far: " in said) == (sent == signal.SIGINT)
    deadline = time.monotonic() + 60
    while left := below & processes().keys():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


Process = tuple[int, int]
"""Process id and start time, which together are unique."""


def processes() -> dict[Process, int]:
    """Return the living processes, each with its parent's process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(path.parent.name), int(fields[19])] = int(fields[1])
    return found


def descendants(pid: int) -> set[Process]:
    """Return the processes below one."""
    parents = processes()
    found: set[Process] = set()
    numbers = {pid}
    while new := {one for one, parent in parents.items() if parent in numbers} - found:
        found |= new
        numbers |= {one[0] for one in new}
    return found
