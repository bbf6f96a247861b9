"""Commands that need no model: help, doctor, replay, budget, preload (4 s)."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.solver_cases.recorded_run import record_run

from eightfold.solver.chat.prompt_texts import prompts_for
from eightfold.solver.cli import command_line, main
from eightfold.solver.cli.command_line import make_parser
from eightfold.solver.cli.solver_options import solver_config
from eightfold.solver.evaluation.run_settings import run_settings
from eightfold.solver.model_defaults import ModelInputs, SamplingValues


def test_help_and_version_import_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from eightfold.solver.cli import main; main(['solve', '--help']);"
        "main(['solve', 'x', '--attempts', '0']);"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'zmq', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("eightfold ")


def test_no_help_has_a_doubled_percent_sign_or_a_doubled_stop() -> None:
    for leaf in [make_parser(), *make_parser().leaves()]:
        text = leaf.format_help()
        assert "%%" not in text, leaf.prog
        assert not re.search(r"(?<!\.)\.\.(?!\.)", text), leaf.prog


def test_verbose_logs_what_is_done(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    words = ["preload", str(tmp_path), "--quiet"]
    assert main([*words, "--verbose"]) == 0
    told = capfd.readouterr().err
    assert re.search(r"^\d\d:\d\d:\d\d INFO eightfold\.\S+: settings file: none$", told, re.M)
    assert "DEBUG" not in told
    assert main([*words, "--verbose", "--verbose"]) == 0
    assert re.search(
        r"^\d\d:\d\d:\d\d DEBUG eightfold\.\S+: threads = 8$", capfd.readouterr().err, re.M
    )
    assert main(["serve", "--api-key", "secret", "--port", "-1", "--verbose", "--verbose"]) == 2
    told = capfd.readouterr().err
    assert "DEBUG" in told
    assert "secret" not in told
    assert main(words) == 0
    assert capfd.readouterr().err == "", "the next command of this process starts silent again"


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "eightfold.solver.cli", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True)
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: eightfold ")


def test_doctor_gets_its_option_and_its_exit_code_is_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eightfold.sandbox import doctor

    seen: list[list[str]] = []
    monkeypatch.setattr(doctor, "main", lambda argv: seen.append(argv) or 1)
    assert main(["sandbox", "doctor", "--json"]) == 1
    assert main(["sandbox", "doctor"]) == 1
    assert seen == [["--json"], []]


def test_settings_of_a_run_hold_all_that_changes_its_results(tmp_path: Path) -> None:
    def settings(*words: str) -> dict[str, Any]:
        options = make_parser().parse_args(["evaluate", "p.csv", "--out", "r", *words])
        folder = None if options.model is None else Path(options.model)
        prompts = prompts_for(None, options.prompts)
        sampling = SamplingValues(temperature=1, top_p=1, top_k=0, min_p=0)
        inputs = ModelInputs(folder, prompts, sampling, frozenset())
        return run_settings(solver_config(options), "digest", inputs, options.limit_time)

    (tmp_path / "p.toml").write_text("nudge = 'Now.'")
    plain = settings()
    same = ("--parallel 3", "--kernels 9", "--quiet", "--json", "--resume")
    assert all(settings(*words.split()) == plain for words in same)
    others = (
        "--attempts 3|--early-stop 1|--turns 2|--time 5|--seed 1|--temperature 1|--top-p 1|"
        "--top-k 5|--min-p 0.1|--rule entropy|--tool-timeout 2|--max-tokens 9|--max-context 99|"
        f"--no-tool|--limit-time 99|--model x|--prompts {tmp_path / 'p.toml'}"
    ).split("|")
    assert all(settings(*words.split()) != plain for words in others)


def test_replay_shows_all_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path / "run")
    assert main(["replay", str(tmp_path / "run"), "--json"]) == 0
    out = capsys.readouterr().out
    for name in ("majority", "fewer_errors", "entropy", "errors_then_entropy", "pass@1", "pass@3"):
        assert f"  {name} " in out
    table = json.loads(out.splitlines()[-1])
    assert {row["name"]: row["value"] for row in table}["majority"] == 1.0
    assert main(["replay", str(tmp_path / "run"), "--rule", "entropy", "--attempts", "2"]) == 0
    assert "majority" not in capsys.readouterr().out


def test_budget_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "simulate", "--runs", "400"]) == 0
    out = capsys.readouterr().out
    assert "never exceeded" in out
    assert [line.split()[0] for line in out.splitlines()[2:6]] == [
        "first",
        "last",
        "everywhere",
        "shuffled",
    ]


def test_preload_draws_a_bar_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    reader, writer = pty.openpty()
    words = [sys.executable, "-m", "eightfold.solver.cli", "preload", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with open(writer, "wb") as terminal:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    shown = b""
    with suppress(OSError), open(reader, "rb", buffering=0) as file:  # fails at the end, on Linux
        while part := file.read(4096):
            shown += part
    assert done.returncode == 0, shown
    assert done.stdout.startswith(b"1 file of 0.00 GB")
    assert "1.0/1.0 MB" in shown.decode()


def test_a_second_interrupt_does_not_hide_what_the_first_one_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(options: argparse.Namespace) -> int:
        try:
            raise KeyboardInterrupt("Interrupted; 3 of 9 problems done.")
        finally:
            raise KeyboardInterrupt

    assert command_line._run(argparse.Namespace(run=interrupted)) == 130
    assert capsys.readouterr().err == "Interrupted; 3 of 9 problems done.\n"
