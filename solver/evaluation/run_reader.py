"""Reads the records of a run: its problems and attempts, JSON Lines.

A last line that a kill cut off is left out. A problem's last line counts, with the attempts of its
round; see `run_folder`.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..attempts.attempt_statistics import AttemptStatistics, tail_entropy
from ..solver_config import SolverError

KEYS = {
    "problems": ("id", "round", "family", "truth", "answer", "attempts", "seconds", "faults"),
    "attempts": (
        *("id", "round", "attempt", "ending", "answer", "ended", "tokens", "calls", "errors"),
        *("error_kinds", "entropy"),
    ),
}
"""The keys in the lines of each file that scores and votes need."""

NUMBERS = ("round", "attempt", "ended", "tokens", "calls", "errors", "seconds", "attempts")

_HEAD = re.compile(rb'\{"round": (\d+), "id": ("(?:[^"\\]|\\.)*"),')
"""The beginning of a line of attempts.jsonl, as `run_folder` writes it."""

RunRecord = tuple[dict[str, Any], list[dict[str, Any]]]
"""The record of a problem, with the records of its attempts in order of their numbers."""


def read_run(folder: Path) -> list[RunRecord]:
    """Read the finished problems of a run into memory; see `iterate_run`."""
    return list(iterate_run(folder))


def iterate_run(folder: Path) -> Iterator[RunRecord]:
    """Yield the finished problems of a run, of which one at a time is in memory.

    Raises:
        SolverError: the folder holds no run, is damaged, or lacks attempts at a finished problem.
    """
    problems, attempts = folder / "problems.jsonl", folder / "attempts.jsonl"
    if not problems.is_file():
        raise SolverError(f"{folder} holds no run: it has no problems.jsonl.")
    # Where each problem's last line begins, and its round: a problem may be solved again.
    places = {
        record["id"]: (offset, record["round"])
        for offset, record in _lines_at(problems, KEYS["problems"])
    }
    found = _attempt_places(attempts, places)
    for key, (offset, _) in places.items():
        problem = _line_at(problems, offset, "problems")
        tries = [_line_at(attempts, place, "attempts") for place in found.get(key, ())]
        if len(tries) < problem["attempts"]:
            raise SolverError(
                f"{attempts} lacks attempts at problem {key!r}; "
                "remove its line from problems.jsonl and use --resume to run it again."
            )
        yield problem, sorted(tries, key=lambda one: int(one["attempt"]))


def _attempt_places(path: Path, problems: dict[str, tuple[int, int]]) -> dict[str, array[int]]:
    """Return where the lines begin of the attempts in the last round of each problem."""
    places: dict[str, array[int]] = {}
    if not path.is_file():
        return places
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):  # else a kill cut it off
                head = _HEAD.match(line)
                if head is not None:
                    key, start = json.loads(head[2]), int(head[1])
                else:  # written by something else, or damaged
                    record = _parse_line(path, number, line, KEYS["attempts"])
                    key, start = record["id"], record["round"]
                if key in problems and problems[key][1] == start:
                    places.setdefault(key, array("q")).append(offset)
            offset += len(line)
    return places


def read_lines(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the objects in a JSON Lines file, without a last line that a kill cut off.

    Args:
        path: the file; if it does not exist, nothing is yielded.
        keys: what each object must have.

    Raises:
        SolverError: a line is not a JSON object with these keys.
    """
    for _, record in _lines_at(path, keys):
        yield record


def _lines_at(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects in a JSON Lines file, each with the position of its line."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            yield offset, _parse_line(path, number, line, keys)
            offset += len(line)


def _line_at(path: Path, offset: int, name: str) -> dict[str, Any]:
    """Return the object in the line that begins at a position."""
    with path.open("rb") as file:
        file.seek(offset)
        line = file.readline()
        try:
            return _parse_line(path, 0, line, KEYS[name])
        except SolverError:  # only now does the line's number matter
            file.seek(0)
            number = file.read(offset).count(b"\n") + 1
    return _parse_line(path, number, line, KEYS[name])


def _parse_line(path: Path, number: int, line: bytes, keys: Sequence[str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise _damaged(path, number, f"is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _damaged(path, number, "is not a JSON object")
    missing = [key for key in keys if key not in record]
    if missing:
        raise _damaged(path, number, f"has no {missing[0]!r}")
    for key in NUMBERS:
        if not isinstance(record.get(key, 0), int | float):
            raise _damaged(path, number, f"has no number for {key!r}")
    return record


def _damaged(path: Path, number: int, fault: str) -> SolverError:
    return SolverError(
        f"Line {number} of {path} {fault}; "
        "remove the line and use --resume to run its problem again."
    )


def statistics_of(record: dict[str, Any], tail: int | None = None) -> AttemptStatistics:
    """Return the statistics of a recorded attempt, on which votes are based.

    Args:
        record: a line of attempts.jsonl.
        tail: number of last tokens over which the entropy is averaged; None keeps the recorded
            average.
    """
    entropy = record["entropy"]
    if tail is not None:
        entropy = tail_entropy(
            [value for turn in record["turns"] for value in turn["entropies"]], tail
        )
    return AttemptStatistics(
        record["attempt"],
        record["answer"],
        record["calls"],
        record["errors"],
        entropy,
        record["ended"],
        record["code"] if "code" in record else _code_length(record),
    )


def _code_length(record: dict[str, Any]) -> int:
    """Return the characters of code in an attempt's calls, which older runs do not record."""
    calls = [call for turn in record.get("turns", ()) for call in turn.get("calls", ())]
    return sum(len(call["code"]) for call in calls if call["code"] is not None)
