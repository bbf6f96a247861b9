"""Runs in the formats of other tools (3 s)."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from eightfold.solver.cli import main

THOUGHT = "<|channel>thought\nI compute.\n<channel|>"
CALL = '<|tool_call>call:python{code:<|"|>print(2 + 2)<|"|>}<tool_call|><|tool_response>'


def attempt(problem: str, index: int, answer: int | None, ending: str) -> dict[str, Any]:
    """Return the record of an attempt with one call and a final turn."""
    call = {
        "code": "print(2 + 2)", "status": "ok", "error": None, "seconds": 0.1, "output": "4\n"
    }  # fmt: skip
    box = "" if answer is None else f"So it is $\\boxed{{{answer}}}$."
    turns = [
        {"opener": "", "text": THOUGHT + CALL, "calls": [call], "appended": [1, 2]},
        {"opener": "", "text": f"{box} </script>\x1b<turn|>", "calls": [], "appended": []},
    ]
    return {
        "round": 1, "id": problem, "attempt": index, "seed": index, "ending": ending,
        "detail": "", "answer": answer, "tokens": 20, "calls": 1, "errors": 0, "error_kinds": [],
        "entropy": 0.1, "ended": 1.5, "turns": turns,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two problems with three attempts each; the second one's answer is not known."""
    folder = tmp_path / "run"
    folder.mkdir()
    settings = {"model": "/somewhere/qwen", "attempts": 3, "rule": "majority", "tool": True}
    (folder / "run.json").write_text(json.dumps({"settings": settings, "round": 1}))
    problems, attempts = [], []
    for name, truth in (("p1", 4), ("p2", None)):
        answers = [(4, "answered"), (5, "answered"), (None, "cancelled by consensus")]
        attempts += [attempt(name, i, one, ending) for i, (one, ending) in enumerate(answers)]
        problems.append(
            {
                "round": 1, "id": name, "problem": "What is 2 + 2?", "family": None,
                "truth": truth, "answer": 4, "attempts": 3, "seconds": 2.0, "faults": [],
                "votes": {"4": 1, "5": 1}, "prompt": [1, 2, 3],
            }
        )  # fmt: skip
    for kind, records in (("problems", problems), ("attempts", attempts)):
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


def test_conversations_hold_calls_and_outputs_without_markup(run: Path) -> None:
    assert main(["export", str(run), "--to", "sft"]) == 0
    (line,) = (run / "conversations.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["id"], record["answer"], record["right"]) == ("p1", 4, True)
    user, assistant, tool, final = record["messages"]
    assert user == {"role": "user", "content": "What is 2 + 2?"}
    assert assistant["reasoning_content"] == "I compute."
    (call,) = assistant["tool_calls"]
    assert call["function"] == {"name": "python", "arguments": {"code": "print(2 + 2)"}}
    assert (tool["content"], tool["tool_call_id"]) == ("4\n", call["id"])
    assert "<turn|>" not in final["content"]
    assert final["content"].startswith("So it is $\\boxed{4}$.")
    assert main(["export", str(run), "--to", "sft", "--all"]) == 0
    every = [json.loads(one) for one in (run / "conversations.jsonl").read_text().splitlines()]
    assert [(one["id"], one["right"]) for one in every] == [
        ("p1", True), ("p1", False), ("p2", None), ("p2", None)
    ]  # fmt: skip


def test_scores_become_an_entry_of_a_model_page(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run / "aime_with_tools.yaml"
    options = ["export", str(run), "--to", "hf", "--dataset", "MathArena/aime_2026"]
    assert main([*options, "--out", str(out)]) == 0
    (entry,) = yaml.safe_load(out.read_text())
    assert entry["dataset"] == {"id": "MathArena/aime_2026", "task_id": "default"}
    assert entry["value"] == 100.0
    assert entry["notes"].startswith("With tools (Python); majority@3; 1 problems")
    assert main([*options, "--score", "pass@1"]) == 0
    assert main([*options, "--score", "pass@9"]) == 2
    assert "only accuracy, pass@1" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect-ai is not installed")
@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_a_log_is_read_by_inspect(run: Path, name: str) -> None:
    from inspect_ai.log import read_eval_log

    out = run / name
    assert main(["export", str(run), "--to", "inspect", "--out", str(out)]) == 0
    log = read_eval_log(str(out))
    assert log.status == "success"
    assert log.samples is not None
    assert len(log.samples) == 6
    sample = log.samples[0]
    assert (sample.id, sample.epoch, sample.target) == ("p1", 1, "4")
    assert sample.scores is not None
    values = {(one.id, one.epoch): one.scores["answer"].value for one in log.samples if one.scores}
    assert [values["p1", epoch] for epoch in (1, 2, 3)] == ["C", "I", "I"]
    assert {values["p2", epoch] for epoch in (1, 2, 3)} == {"N"}
    assert [message.role for message in sample.messages] == [
        "user", "assistant", "tool", "assistant"
    ]  # fmt: skip


@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect-ai is not installed")
def test_odd_ids_lose_no_sample(run: Path) -> None:
    from inspect_ai.log import read_eval_log

    for kind in ("problems", "attempts"):
        path = run / f"{kind}.jsonl"
        path.write_text(path.read_text().replace('"p2"', '"../p\\u0000\\ud800/2"'))
    assert main(["export", str(run), "--to", "inspect"]) == 0
    assert len(read_eval_log(str(run / "inspect.eval")).samples or ()) == 6


def test_what_the_machine_failed_is_not_trained_on(run: Path) -> None:
    path = run / "attempts.jsonl"
    path.write_text(path.read_text().replace('"cancelled by consensus"', '"engine failed"'))
    assert main(["export", str(run), "--to", "sft", "--all"]) == 0
    assert len((run / "conversations.jsonl").read_text().splitlines()) == 4


def test_the_files_of_a_run_are_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "attempts.jsonl"
    before = out.read_bytes()
    for command in (["export", "--to", "sft"], ["report"]):
        assert main([*command, str(run), "--out", str(out)]) == 2
        assert "is part of a run and would be lost" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "hf"], "--to hf needs --dataset"),
        (["--to", "sft", "--dataset", "x"], "--dataset is not an option of --to sft"),
        (["--to", "hf", "--dataset", "x", "--all"], "--all is not an option of --to hf"),
    ],
)
def test_wrong_options_give_one_sentence(
    run: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_wrong_input(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(run), "--to", "sft", "--out"]
    assert main([*command, str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"written to {tmp_path}: Is a directory; name another file with --out.\n")
    assert main([*command, str(tmp_path / "new" / "folder" / "file.jsonl")]) == 0


def test_without_inspect_the_error_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eightfold.solver.export import inspect_log

    monkeypatch.setattr(inspect_log, "find_spec", lambda name: None)
    assert main(["export", str(run), "--to", "inspect"]) == 2
    assert "install eightfold[inspect]" in capsys.readouterr().err
