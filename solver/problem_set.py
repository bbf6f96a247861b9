"""Problems with their answers if those are known, read from files one at a time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eightfold.common.error_text import one_line

from .problems.row_readers import read_rows
from .solver_config import SolverError

MAX_DIGITS = 100
_INTEGER = re.compile(r"\s*([-+]?\d+)(?:\.0*)?\s*")
"""An integer, also as pandas writes it if a column has gaps: 42.0."""

ROW_NUMBER = "row"
"""Stands for the number of a row, from 0, in place of the column of the ids."""


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


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a problem.

    Attributes:
        id: the id; "row" numbers the rows if no column has that name.
        question: the text.
        answer: the answer; None takes "answer" if there is such a column.
    """

    id: str = "id"
    question: str = "problem"
    answer: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every file must have."""
        names = (self.id, self.question, self.answer)
        return tuple(name for name in names if name is not None and name != ROW_NUMBER)


@dataclass(frozen=True)
class Survey:
    """What is known of a set of problems once all have been read and checked.

    Attributes:
        count: number of problems.
        digest: a digest of them, by which a run recognizes its own problems.
        outside: ids of problems whose answer is outside of the range of answers.
    """

    count: int
    digest: str
    outside: tuple[str, ...]


class ProblemSet:
    """The problems of some files, which are read anew, one after the other, by each iteration.

    Args:
        files: the files, in order.
        columns: names of the columns.
        first: take only so many problems; None takes all.

    Raises:
        SolverError: when a problem is read that is empty, not text, or lacks its id; whose answer
            is not an integer; or whose file is missing, unreadable or of another kind.
    """

    def __init__(
        self, files: Sequence[Path], columns: Columns | None = None, first: int | None = None
    ) -> None:
        self.files = tuple(files)
        self.columns = columns or Columns()
        self.first = first

    def __iter__(self) -> Iterator[Problem]:
        """Yield the problems."""
        return islice(self._problems(), self.first)

    def _problems(self) -> Iterator[Problem]:
        before = 0  # rows of the files before
        for path in self.files:
            number = 0
            for number, row in enumerate(read_rows(path, self.columns.required), 1):
                if self.columns.id == ROW_NUMBER and ROW_NUMBER not in row:
                    row[ROW_NUMBER] = before + number - 1
                yield _problem(path, number, row, self.columns)
            before += number

    def survey(self, low: int | None = None, high: int | None = None) -> Survey:
        """Read all problems once, and check that their ids differ.

        Args:
            low, high: range of answers.

        Raises:
            SolverError: if two problems have the same id, or if there is none.
        """
        seen: set[str] = set()
        outside = []
        digest = hashlib.blake2b(b"[", digest_size=8)
        for problem in self:
            if problem.id in seen:
                raise SolverError(f"{self._name()} has the id {problem.id!r} twice.")
            if problem.answer is not None and (
                (low is not None and problem.answer < low)
                or (high is not None and problem.answer > high)
            ):
                outside.append(problem.id)
            row = json.dumps([problem.id, problem.text, problem.answer])
            digest.update(f"{', ' if seen else ''}{row}".encode())
            seen.add(problem.id)
        if not seen:
            raise SolverError(f"{self._name()} contains no problem.")
        digest.update(b"]")
        return Survey(len(seen), digest.hexdigest(), tuple(outside))

    def _name(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)


def load_problems(path: str | Path) -> list[Problem]:
    """Return the problems in a .csv, .jsonl or .parquet file with the columns id and problem.

    The column answer may be missing or empty, and so may family.

    Raises:
        SolverError: as `ProblemSet`, or if two problems have the same id, or if there is none.
    """
    problems = ProblemSet([Path(path)])
    problems.survey()
    return list(problems)


def _problem(path: Path, number: int, row: dict[Any, Any], columns: Columns) -> Problem:
    for column in (columns.id, columns.question):
        if row.get(column) is None or not str(row[column]).strip():
            names = ", ".join(str(name) for name in row if name is not None)
            where = "" if column in row else f"; it has {names}"
            raise SolverError(f"Problem {number} of {path} has no {column}{where}.")
    if None in row:  # the key under which csv puts surplus cells
        raise SolverError(
            f"Problem {number} of {path} has too many cells; quote cells that contain commas."
        )
    text, id_ = row[columns.question], str(row[columns.id])
    if not isinstance(text, str):
        raise SolverError(f"The text of problem {number} of {path} is not a string.")
    return Problem(id_, text, _answer(path, id_, row, columns), str(row.get("family") or ""))


def _answer(path: Path, id_: str, row: dict[Any, Any], columns: Columns) -> int | None:
    if columns.answer is not None and columns.answer not in row:
        raise SolverError(f"Problem {id_} of {path} has no {columns.answer}.")
    answer = row.get(columns.answer or "answer")
    if answer in (None, ""):
        return None
    found = _INTEGER.fullmatch(str(answer))
    if found is None:
        raise SolverError(
            f"The answer of problem {id_} of {path} is not an integer: "
            f"{one_line(repr(answer), 60)}."
        )
    digits = sum(character.isdigit() for character in str(answer))
    if digits > MAX_DIGITS:
        raise SolverError(
            f"The answer of problem {id_} of {path} is an integer of {digits} digits; "
            f"at most {MAX_DIGITS} are read."
        )
    return int(found[1])
