"""Exceptions and odd text as single lines."""

import pytest

from eightfold.common.error_text import first_line, one_line
from eightfold.common.valid_text import escape_surrogates, replace_surrogates


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "first", "line"),
    [
        (ValueError("a\n b"), "a", "ValueError: a b"),
        (ValueError("\n\n  a"), "a", "ValueError: a"),
        (ValueError(), "ValueError", "ValueError:"),
    ],
)
def test_errors_in_one_line(error: Exception, first: str, line: str) -> None:
    assert first_line(error) == first
    assert one_line(error) == line


def test_one_line_of_what_is_no_error_or_cannot_be_printed() -> None:
    assert one_line("a\t\nb") == "a b"
    assert one_line(UnprintableError()) == "UnprintableError: it cannot be printed"


def test_a_long_text_keeps_beginning_and_end() -> None:
    line = one_line("begin" + "x" * 1000 + "the end", limit=60)
    assert len(line) == 60
    assert line.startswith("begin")
    assert line.endswith("the end")


def test_lone_surrogates() -> None:
    assert escape_surrogates("a\ud800b") == "a\\ud800b"
    assert replace_surrogates("a\ud800b") == "a?b"
    for text in ("", "plain", "e\u0301 \U0001f600"):
        assert escape_surrogates(text) == replace_surrogates(text) == text
