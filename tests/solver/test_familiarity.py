"""How far a problem is from a model's training."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from eightfold.solver.familiarity import (
    FILE,
    SIGNS,
    Familiarity,
    bit_of,
    numbers_of,
    read_familiarity,
    sequences_of,
)
from eightfold.solver.solver_config import SolverError

BITS = 1 << 16


def trained_on(*texts: str) -> Familiarity:
    table = bytearray(BITS // 8)
    for text in texts:
        for keys in sequences_of(text):
            for key in keys:
                bit = bit_of(key, BITS)
                table[bit >> 3] |= 1 << (bit & 7)
    return Familiarity(3, bytes(table), dict.fromkeys(SIGNS, 1.0), 0.5)


def attempt(
    answer: int | None, code: str, errors: int = 0, ending: str = "answered"
) -> dict[str, Any]:
    turns = [{"calls": [{"code": code}]}]
    return {"answer": answer, "turns": turns, "errors": errors, "ending": ending}


def test_known_words_with_other_numbers_are_not_new() -> None:
    known = trained_on("What is the sum of 12 and 345?")
    assert known.novelty("What is the sum of 7 and 8?") == 0.0
    assert 0.0 < known.novelty("What is the sum of 7 and 8 and 9?") < 0.4
    assert known.novelty("Who wrote this play?") > 0.8


def test_numbers_of_a_problem_are_found_in_digits_and_words() -> None:
    assert numbers_of("twenty-five of 1,250 and $3^{20}$") == {"25", "1250", "3", "20"}
    assert numbers_of("nothing") == set()
    assert numbers_of("from 09:05 to 12:00") == {"9", "5", "12", "0"}
    for label in ("Exercise 12.", "Problem 27:", "4)", "#4:", "12."):
        assert numbers_of(f"{label} What is 7 + 8?") == {"7", "8"}, label
    assert numbers_of("2.5 is half of 5") == {"2", "5"}
    assert numbers_of("12 of 40") == {"12", "40"}


def test_programs_without_the_numbers_and_dissent_make_a_problem_distant() -> None:
    known = trained_on("What is the sum of 12 and 345?")
    text = "What is the sum of 12 and 345?"
    agreed = [attempt(357, "print(12 + 345)")] * 4
    assert known.distance(text, 357, agreed) == 0.0
    cut = attempt(None, "", ending="cancelled by consensus")
    assert known.distance(text, 357, [*agreed, cut]) == 0.0
    assert known.distance(text, 0, [attempt(0, "print(0)")] * 4) == 2.0
    malformed = {**attempt(357, ""), "turns": [{"calls": [{"code": None}, {"code": "12 + 345"}]}]}
    assert known.distance(text, 357, [malformed]) == 0.0
    split = [attempt(357, "print(12 + 345)"), attempt(1, "print(1)")]
    assert known.distance(text, 357, split) == 1.0
    assert known.distance(text, None, []) > 1.0
    assert "3 kinds of problems" in known.note()
    assert "--model" in known.note()


def test_the_file_is_read_or_refused(tmp_path: Path) -> None:
    assert read_familiarity(None) is None
    assert read_familiarity(tmp_path) is None
    known = trained_on("one two")
    content = {
        "kinds": 3,
        "threshold": 0.5,
        "weights": dict.fromkeys(SIGNS, 1.0),
        "table": base64.b85encode(zlib.compress(known.table)).decode(),
    }
    (tmp_path / FILE).write_text(json.dumps(content))
    assert read_familiarity(tmp_path) == known
    for broken in ("{", json.dumps({**content, "table": "!"}), json.dumps({"kinds": 1})):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(SolverError, match="remove it"):
            read_familiarity(tmp_path)
