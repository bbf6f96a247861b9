"""Reads files of problems with known answers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from .solver_config import SolverError

_INTEGER = re.compile(r"\s*[-+]?\d{1,100}\s*")


@dataclass(frozen=True)
class Problem:
    """A problem; `answer` is None where it is not known, `family` groups problems, "" for none."""

    id: str
    text: str
    answer: int | None
    family: str = ""


def load_problems(path: str | Path) -> list[Problem]:
    """The problems in a CSV or JSON Lines file with the columns id, problem, answer.

    `answer` may be missing or empty; `family`, where there is one, groups the summary.

    Raises:
        SolverError: no such file or none that may be read, another kind of file, no CSV table or
            JSON, a missing column, an answer that is no integer, an empty problem, the same id
            twice, or no problem at all.
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
        raise SolverError(f"{path} holds no problem.")
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
        raise SolverError(f"{path} is no CSV table: {error}.") from error


def _json_rows(path: Path, text: str) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise SolverError(f"Line {number} of {path} is no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise SolverError(f"Line {number} of {path} is no JSON object.")
            yield row


def _problem(path: Path, number: int, row: dict[str, Any]) -> Problem:
    for column in ("id", "problem"):
        if row.get(column) is None or not str(row[column]).strip():
            raise SolverError(f"Problem {number} of {path} has no {column}.")
    if None in row:  # where csv puts surplus cells
        raise SolverError(
            f"Problem {number} of {path} has too many cells; quote those with commas."
        )
    if not isinstance(row["problem"], str):
        raise SolverError(f"Problem {number} of {path} is no text.")
    answer = row.get("answer")
    value = None
    if answer not in (None, ""):
        if not _INTEGER.fullmatch(str(answer)):
            raise SolverError(
                f"The answer of problem {row['id']} of {path} is no integer: "
                f"{shorten(repr(answer), 60)}."
            )
        value = int(answer)
    return Problem(str(row["id"]), str(row["problem"]), value, str(row.get("family") or ""))


def fingerprint(problems: list[Problem]) -> str:
    """A digest of a list of problems, to recognise a run's own file."""
    text = json.dumps([[one.id, one.text, one.answer] for one in problems])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
