"""Files of problems: CSV, JSON Lines, and unusable ones (0.5 s)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eightfold.solver import SolverError
from eightfold.solver.problem_set import Problem, load_problems


def test_problems_are_read_from_csv_and_json_lines(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text('id,problem,answer\na,"Two\nlines, $x$",7\nb,What?,\n')
    assert load_problems(table) == [Problem("a", "Two\nlines, $x$", 7), Problem("b", "What?", None)]
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"id": 1, "problem": "Ü\\u2028x", "answer": 5, "family": "f"}\n\n')
    assert load_problems(lines) == [Problem("1", "Ü\u2028x", 5, "f")]
    odd = '\ufeffid,problem,answer\r\n0,"a ""q""\r\nb",5\r\n\r\n1,u\u2028v\x0cw, 6 \r\n'
    table.write_bytes(odd.encode())
    assert load_problems(table) == [
        Problem("0", 'a "q"\nb', 5),
        Problem("1", "u\u2028v\x0cw", 6),
    ]
    table.write_text("id,problem,answer\na,x,42.0\nb,y,\n")  # as pandas writes whole numbers
    assert [one.answer for one in load_problems(table)] == [42, None]
    table.write_text(f"id,problem\n1,{'x' * 200_000}\n")
    assert len(load_problems(table)[0].text) == 200_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "", ".csv or .jsonl"),
        ("p.csv", "id,answer\na,1\n", "no column 'problem'"),
        ("p.csv", "id;problem\na;x\n", "no column 'id'; its first line names id;problem"),
        ("p.csv", "", "contains no problem"),
        ("p.csv", "id,problem,answer\na,Find 3, 4,5\n", "too many cells; quote"),
        ("p.csv", 'id,problem\na,"open\n', "not a CSV table"),
        ("p.csv", "id,problem,answer\na,  ,1\n", "Problem 1 .* no problem"),
        ("p.csv", f"id,problem,answer\na,x,{'9' * 5000}\n", "integer of 5000 digits; at most 100"),
        ("p.csv", f"id,problem,answer\na,x,{'9' * 200}x\n", "integer: '99999999.*99x'.$"),
        ("p.jsonl", '{"id": 1, "problem": "x", "answer": ' + "9" * 5000 + "}", "is not JSON"),
        ("p.csv", "id,problem,answer\n", "contains no problem"),
        ("p.csv", "id,problem,answer\na,x,1\na,y,2\n", "twice"),
        ("p.csv", "id,problem,answer\na,x,4.5\n", "not an integer"),
        ("p.jsonl", "{oops\n", "not JSON"),
        ("p.jsonl", "[1]\n", "not a JSON object"),
        ("p.jsonl", "[" * 100_000, "not JSON"),
        ("p.jsonl", '{"id": 1, "problem": ["x"]}', "is not a string"),
        ("p.jsonl", '{"id": 1, "problem": "x", "answer": 4.2}', "not an integer: 4.2"),
        ("p.jsonl", '{"id": 1, "problem": "x", "answer": true}', "not an integer: True"),
        ("p.jsonl", '{"id": 1, "problem": "x"}\n{"id": "1", "problem": "y"}', "'1' twice"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    # Cells that ran in this process may have lifted the limit.
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    with pytest.raises(SolverError, match=message):
        load_problems(tmp_path / name)
    with pytest.raises(SolverError, match="no file"):
        load_problems(tmp_path / "none.csv")


def test_unreadable_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "p.csv").symlink_to("/proc/self/mem")  # even root cannot read it
    with pytest.raises(SolverError, match=r"p\.csv cannot be read: "):
        load_problems(tmp_path / "p.csv")
