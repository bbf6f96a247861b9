"""The command line reports wrong input in one sentence, with exit code 2. About 20 s."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.solver.cli import main
from eightfold.solver.model_defaults import bundled_model


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["solve", "x", "--attempts", "-8"],
            "eightfold solve: --attempts must be at least 1, not -8.",
        ),
        (["solve", "x", "--attempts", "100000"], ": --attempts must be at most 1024"),
        (["solve", "x", "--kernels", "1000"], ": --kernels must be at most 256"),
        (["solve", "x", "--top-p", "0"], "--top-p must be from 1e-09 to 1, not 0.0."),
        (["solve", "x", "--min-p", "nan"], "--min-p must be from 0 to 1, not nan."),
        (["solve", "x", "--trace", "/no/such"], "The trace cannot be written to /no/such"),
        (["solve", "x", "--model", "/no/such"], "There is no model folder /no/such"),
        (
            ["solve", "x", "--speculate", "/no/such"],
            "'ngram' or a drafter's folder, not '/no/such'",
        ),
        (["solve", " "], "The problem is empty"),
        (["solve", "--file", "/no/such"], "There is no file /no/such."),
        (["solve", "x", "--file", "y"], "not both"),
        (["solve", "x", "--prompts", "/no/such"], "There is no prompts file /no/such"),
        (["solve", "--file", "/"], "There is no file /."),
        (["solve", "a\udcff"], "The problem is not UTF-8 text."),
        (["solve", "x", "--time", "inf"], "--time must be a positive number of seconds, not inf."),
        (["solve", "x", "--turns", "-1"], "--turns must be at least 0, not -1."),
        (["solve", "x", "--seed", "-1"], "--seed must be at least 0, not -1."),
        (["solve", "x", "--top-k", "-1"], "--top-k must be from 0 to 2147483647, not -1."),
        (
            ["evaluate", "p.csv", "--out", "r", "--limit-time", "nan"],
            "--limit-time must be a positive",
        ),
        (["replay", ".", "--attempts", "0"], "--attempts at least 1"),
        (["solve", "x", "--time", "never"], "argument --time: invalid float value"),
        (["solve", "x", "--max-context", "1"], "--max-context must be at least 2, not 1."),
        (["evaluate", "/no/such.csv", "--out", "r"], "There is no file of problems"),
        (["evaluate", "p.csv", "--out", "r", "--parallel", "0"], "--parallel must be at least 1"),
        (["replay", "/no/such"], "holds no run"),
        (
            ["budget", "simulate", "--cap", "1"],
            "eightfold budget simulate: --cap (1 s) must be at least the floor",
        ),
        (
            ["solve", "What", "is", "2+2?"],
            "is 2+2? Quote the problem's text, as in eightfold solve",
        ),
        (["solve", "x", "-5+3"], "text that begins with - comes last, after --. See"),
        (["solve", "-q"], "unrecognized arguments: -q. See eightfold solve --help."),
        (["solve", "x", "--atempts", "4"], "--atempts 4. Did you mean --attempts? See eightfold"),
        (["solve", "x", "-quiet"], "arguments: -quiet. Did you mean --quiet? See eightfold solve"),
        (["sovle", "x"], "eightfold: there is no command 'sovle'; did you mean solve? See"),
        (
            ["What is 2+2?"],
            "to solve a problem, write eightfold solve 'TEXT'. See eightfold --help.",
        ),
        (["sandbox", "docter"], "there is no command 'docter'; did you mean doctor? See eightfold"),
        (
            ["kaggle", "zzz"],
            "there is no command 'zzz'; choose from rehearse. See eightfold kaggle",
        ),
        (["kaggle", "rehearse", "p", "-q"], "-q. See eightfold kaggle rehearse --help."),
        (
            ["--fast", "solve", "x"],
            "eightfold: unrecognized arguments: --fast. See eightfold --help",
        ),
        (["solve", "x", "--attempts", "1" * 200], "1024, not 111111...1111 (200 digits)."),
        (["solve", "x", "--time", "1" * 200 + "x"], "value: '111111...1111 (200 digits)x'. See"),
        (["budget"], "required: PART"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ("- <&-", "Give the problem's text, - for standard input, or --file FILE."),
        ("<&-", "Give the problem's text, - for standard input, or --file FILE."),
        ("- </dev/null", "The problem is empty; give its text."),
        (r"- < <(printf '\xff\xfe')", "Standard input is not UTF-8 text."),
        (r"--file <(printf '\xef\xbb\xbf ')", "The problem is empty; give its text."),
        ("--attempts 0 2>&-", ""),
    ],
)
def test_closed_streams_and_streams_without_text(streams: str, said: str) -> None:
    command = f"exec {sys.executable} -m eightfold.solver.cli solve {streams}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (f"eightfold solve: {said}\n" if said else "")


def test_an_earlier_trace_is_kept_if_the_model_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text("old\n")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in bundled_model().iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    words = ["solve", "x", "--model", str(folder), "--trace", str(trace), "--kernels", "1"]
    assert main([*words, "--quiet"]) == 2
    assert trace.read_text() == "old\n"
    assert main(["evaluate", *evaluate_arguments(tmp_path), "--model", str(folder), "--quiet"]) == 2
    assert not (tmp_path / "run").exists()


def evaluate_arguments(folder: Path) -> list[str]:
    (folder / "p.csv").write_text("id,problem,answer\n1,x,1\n")
    return [str(folder / "p.csv"), "--out", str(folder / "run"), "--kernels", "1"]


def test_folders_that_hold_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ("no config.json", "no weights", "no tokenizer")
    for name, words in zip(("config.json", "model.safetensors", "-"), said, strict=True):
        assert main(["solve", "x", "--model", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err
        (tmp_path / name).write_text("{}")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{oops", "config.json is not valid JSON"),
        ("config.json", "[1]", "config.json does not hold a JSON object"),
        (
            "generation_config.json",
            '{"eos_token_id": "x"}',
            "eos_token_id must be a token's id or a list",
        ),
        ("config.json", '{"eos_token_id": [-5]}', "not [-5]"),
        ("config.json", '{"hidden_size": "big"}', "hidden_size"),
        ("generation_config.json", "{", "generation_config.json is not valid JSON"),
        ("generation_config.json", '{"temperature": "hot"}', "temperature must be from 0 to 100"),
        ("generation_config.json", '{"temperature": -2}', "not -2."),
        ("generation_config.json", '{"top_p": 1.5}', "top_p must be from 1e-09 to 1, not 1.5."),
        ("tokenizer.json", '{"x": 1}', "The tokenizer in"),
        ("tokenizer_config.json", "[]", "The tokenizer in"),
        ("chat_template.jinja", "{% for x in %}", "chat template fails"),
        ("chat_template.jinja", "hello", "does not show the user's message"),
    ],
)
def test_damaged_model_folders_are_reported_in_one_sentence(
    name: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in bundled_model().iterdir():
        (folder / file.name).symlink_to(file)
    if name == "config.json" and text.startswith('{"'):
        table = json.loads((folder / name).read_text()) | json.loads(text)
        text = json.dumps(table)
    (folder / name).unlink()
    (folder / name).write_text(text)
    assert main(["solve", "x", "--model", str(folder), "--kernels", "1", "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert "Model" not in lines[-1]
    assert not any("Traceback" in line for line in lines)
