"""Reads files of problems, with their answers if those are known."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.common.error_text import one_line

from .solver_config import SolverError

MAX_DIGITS = 100
_INTEGER = re.compile(r"\s*[-+]?\d+\s*")


@dataclass(frozen=True)
class Problem:
    """A problem.

    Attributes:
        id: unique name of the problem.
        text: the problem's text.
        answer: the known answer, or None.
        family: name of a group of problems in the summary, or "".
    """

    id: str
    text: str
    answer: int | None
    family: str = ""


def load_problems(path: str | Path) -> list[Problem]:
    """Return the problems in a .csv or .jsonl file with the columns id and problem.

    The column answer may be missing or empty, and so may family.

    Raises:
        SolverError: if the file is missing, unreadable, of another kind, or contains no problem; if
            a problem is empty, not text, or lacks its id; if an answer is not an integer; or if two
            problems have the same id.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    try:
        if not path.is_file():
            raise SolverError(f"There is no file of problems {path}.")
        if path.suffix.lower() not in readers:
            raise SolverError(f"{path} must be a .csv or .jsonl file.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SolverError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise SolverError(f"{path} cannot be read: {error.strerror}.") from error
    problems = [
        _problem(path, number, row)
        for number, row in enumerate(readers[path.suffix.lower()](path, text), 1)
    ]
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise SolverError(f"{path} has the id {problem.id!r} twice.")
        seen.add(problem.id)
    if not problems:
        raise SolverError(f"{path} contains no problem.")
    return problems


def _csv_rows(path: Path, text: str) -> Iterable[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = reader.fieldnames or ()
        for name in ("id", "problem"):
            if names and name not in names:
                raise SolverError(
                    f"{path} has no column {name!r}; its first line names {', '.join(names)}."
                )
        yield from reader
    except csv.Error as error:
        raise SolverError(f"{path} is not a CSV table: {error}.") from error


def _json_rows(path: Path, text: str) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # also an integer of 5,000 digits
                raise SolverError(f"Line {number} of {path} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise SolverError(f"Line {number} of {path} is not a JSON object.")
            yield row


def _problem(path: Path, number: int, row: dict[str, Any]) -> Problem:
    for column in ("id", "problem"):
        if row.get(column) is None or not str(row[column]).strip():
            raise SolverError(f"Problem {number} of {path} has no {column}.")
    if None in row:  # the key under which csv puts surplus cells
        raise SolverError(
            f"Problem {number} of {path} has too many cells; quote cells that contain commas."
        )
    if not isinstance(row["problem"], str):
        raise SolverError(f"The text of problem {number} of {path} is not a string.")
    answer = row.get("answer")
    value = None
    if answer not in (None, ""):
        if not _INTEGER.fullmatch(str(answer)):
            raise SolverError(
                f"The answer of problem {row['id']} of {path} is not an integer: "
                f"{one_line(repr(answer), 60)}."
            )
        digits = sum(character.isdigit() for character in str(answer))
        if digits > MAX_DIGITS:
            raise SolverError(
                f"The answer of problem {row['id']} of {path} is an integer of {digits} digits; "
                f"at most {MAX_DIGITS} are read."
            )
        value = int(answer)
    return Problem(str(row["id"]), str(row["problem"]), value, str(row.get("family") or ""))


def fingerprint(problems: list[Problem]) -> str:
    """Return a digest of the problems, by which a run recognizes its own file."""
    text = json.dumps([[problem.id, problem.text, problem.answer] for problem in problems])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
