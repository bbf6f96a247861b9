"""Settings files: values of options for all commands and for single ones (1 s)."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from eightfold.solver.cli import main
from eightfold.solver.cli.command_line import make_parser

EXAMPLE = """
attempts = 16
temperature = 1            # a whole number where a number is asked for
model = "models/m"
quiet = true

[evaluate]
attempts = 4
early-stop = 0
no-tool = true

[kaggle.rehearse]
out = "rehearsal"
fallback = 7

[bundle]
out = "upload"
platform = ["linux_x86_64", "any"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(*words: str) -> argparse.Namespace:
    return make_parser().parse_args(words)


def test_the_file_in_the_current_folder_gives_defaults(folder: Path) -> None:
    (folder / "eightfold.toml").write_text(EXAMPLE)
    solve = parse("solve", "x")
    assert (solve.attempts, solve.temperature, solve.model) == (16, 1.0, "models/m")
    assert (solve.quiet, solve.tool, solve.early_stop) == (True, True, 4)
    evaluate = parse("evaluate", "p.csv", "--out", "r")
    assert (evaluate.attempts, evaluate.early_stop, evaluate.tool) == (4, 0, False)
    rehearsal = parse("kaggle", "rehearse", "p.csv")
    assert (rehearsal.attempts, rehearsal.out, rehearsal.fallback) == (16, "rehearsal", 7)
    assert parse("bundle").out == "upload", "an option that must be given may be in the file"


def test_the_command_line_comes_before_the_file(folder: Path) -> None:
    (folder / "eightfold.toml").write_text(EXAMPLE)
    (folder / "other.toml").write_text("attempts = 2")
    given = parse("solve", "x", "--attempts", "3")
    assert (given.attempts, given.model) == (3, "models/m")
    assert parse("solve", "x", "--settings", "other.toml").attempts == 2
    assert parse("solve", "x", "--settings=other.toml").model is None, "one file is read"
    assert parse("solve", "x", "--settings", "/dev/null").attempts == 8
    assert parse("bundle").platform == ["linux_x86_64", "any"]
    assert parse("bundle", "--platform", "mine").platform == ["mine"]
    assert parse("solve", "--", "--settings").problem == "--settings"


def test_every_command_reads_it(folder: Path) -> None:
    for leaf in make_parser().leaves():
        named = {**leaf.options()}
        assert {"settings", "verbose"} <= named.keys(), leaf.prog
    (folder / "eightfold.toml").write_text(
        "[budget.simulate]\nruns = 40\n[sandbox.doctor]\njson = true"
    )
    assert parse("budget", "simulate").runs == 40
    assert parse("sandbox", "doctor").json is True
    for text, expected in (("3", 3), ("'3'", 3), ("'auto'", "auto")):
        (folder / "eightfold.toml").write_text(f"workers = {text}")
        assert parse("evaluate", "p.csv", "--out", "r").workers == expected
    (folder / "eightfold.toml").write_text("workers = 1.5")
    with pytest.raises(SystemExit):
        parse("evaluate", "p.csv", "--out", "r")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("atempts = 3", "atempts is not the name of an option; did you mean attempts?"),
        ("early_stop = 3", "early_stop is not the name of an option; did you mean early-stop?"),
        ("zzz = 3", "zzz is not the name of an option; eightfold COMMAND --help lists them."),
        ("problem = 'x'", "problem is not the name of an option"),
        ("settings = 'x'", "settings is not the name of an option"),
        ("[solv]\nattempts = 1", "solv is not the name of an option; did you mean solve?"),
        ("[evaluate]\nruns = 1", "runs in [evaluate] is not the name of an option"),
        ("[kaggle.rehearse]\nqueit = 1", "queit in [kaggle.rehearse] is not the name of an option"),
        ("solve = 3", "solve must be a table, [solve]."),
        ("attempts = 'many'", "attempts must be a whole number, not 'many'."),
        ("attempts = 2.5", "attempts must be a whole number, not 2.5."),
        ("attempts = true", "attempts must be a whole number, not True."),
        ("time = 'long'", "time must be a number, not 'long'."),
        ("model = 3", "model must be a text, not 3."),
        ("quiet = 1", "quiet must be true or false, not 1."),
        ("verbose = -1", "verbose must be a whole number of at least 0, not -1."),
        ("rule = 'mine'", "rule must be one of"),
        ("attempts = 0", "--attempts must be at least 1, not 0."),
        ("attempts", "eightfold.toml is not valid TOML: "),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "eightfold.toml").write_text(text)
    assert main(["solve", "x"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert main(["solve", "--help"]) == 0, "help is printed all the same"


def test_files_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "x", "--settings", "none.toml"]) == 2
    assert "none.toml cannot be read (No such file or directory)" in capsys.readouterr().err
    (folder / "latin.toml").write_bytes(b"model = '\xe9'")
    assert main(["solve", "x", "--settings", "latin.toml"]) == 2
    assert "latin.toml is not valid TOML" in capsys.readouterr().err
    assert main(["solve", "x", "--settings"]) == 2
    assert "expected one argument" in capsys.readouterr().err
    assert main(["solve", "x", "--setting=latin.toml"]) == 2
    assert "latin.toml is not valid TOML" in capsys.readouterr().err, "an abbreviation counts too"
