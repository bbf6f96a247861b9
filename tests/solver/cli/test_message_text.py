"""The text of the messages that end a command (0.1 s)."""

from __future__ import annotations

import pytest

from eightfold.solver.cli.message_text import (
    MAX_CHARACTERS,
    as_sentence,
    name_options,
    shorten_message,
)

NAMES = {
    "attempts": "--attempts",
    "early_stop": "--early-stop",
    "device": "--device",
    "max_context": "--max-context",
    "top_p": "--top-p",
    "time": "--time",
    "model": "--model",
    "tool": "--no-tool",
}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no stop", "no stop."),
        ("The reason: it failed..", "The reason: it failed."),
        ("Is it there?", "Is it there?"),
        ("and so on ...", "and so on ..."),
        ("  x! ", "x!"),
    ],
)
def test_a_sentence_has_one_stop(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("early_stop must be at least 0, not -1.", "--early-stop must be at least 0, not -1."),
        ("attempts must be a whole number.", "--attempts must be a whole number."),
        (
            "max_context must be at least 2 or None, not 1.",
            "--max-context must be at least 2, not 1.",
        ),
        ("Device 'cuda' is gone; use device='cpu'.", "Device 'cuda' is gone; use --device cpu."),
        ("take device=cpu, say", "take --device cpu, say"),
        ("lower max_running (8) or max_context.", "lower --attempts (8) or --max-context."),
        (
            "lower max_step_tokens (2048), max_running (8) or max_context.",
            "lower --attempts (8) or --max-context.",
        ),
        ("run was run with model = 'a', not 'b'", "run was run with --model = 'a', not 'b'"),
        # Words of ordinary sentences, files and their entries keep their names.
        ("The model has no time for attempts.", "The model has no time for attempts."),
        ("m/generation_config.json: top_p must be", "m/generation_config.json: top_p must be"),
        ("runs/early_stop/run.json is gone", "runs/early_stop/run.json is gone"),
        ("early_stop.csv is gone", "early_stop.csv is gone"),
        ("my-early_stop is gone", "my-early_stop is gone"),
    ],
)
def test_settings_are_told_by_the_names_of_their_options(text: str, told: str) -> None:
    assert name_options(text, NAMES) == told


def test_long_numbers_and_texts_are_told_shortly() -> None:
    assert shorten_message(f"not {'7' * 200}.") == "not 777777...7777 (200 digits)."
    assert shorten_message("seed 123456789012345678901") == "seed 123456789012345678901"
    assert len(shorten_message("word " * 1000)) == MAX_CHARACTERS
    assert shorten_message("two\nlines") == "two lines"
