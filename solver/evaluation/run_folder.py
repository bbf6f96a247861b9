"""A run's folder: its settings, a line a problem and a line an attempt, safe against being killed.

    run.json         settings that make the run what it is
    problems.jsonl   one line a finished problem
    attempts.jsonl   one line an ended attempt
    summary.json     written when the run is over

A problem's line is written after those of its attempts. Both name the `round`, the count of starts
of the run, so that attempts of a problem that a kill left unfinished are told from the later ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

from ..attempts.attempt_statistics import AttemptStatistics, tail_entropy
from ..solver_config import SolverError

KEYS = {
    "problems": ("id", "round", "family", "truth", "answer", "attempts", "seconds", "faults"),
    "attempts": (
        *("id", "round", "attempt", "ending", "answer", "ended", "tokens", "calls", "errors"),
        *("error_kinds", "entropy"),
    ),
}
"""What scores and votes need of a line of each file."""


def read_lines(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects in a JSON Lines file; a last line that was cut off by a kill is left out.

    Raises:
        SolverError: another line is no JSON object with these keys.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:  # no JSON, or no UTF-8
                raise SolverError(f"Line {number} of {path} is no JSON: {error}.") from error
            if not isinstance(record, dict):
                raise SolverError(f"Line {number} of {path} is no JSON object.")
            missing = [key for key in keys if key not in record]
            if missing:
                raise SolverError(f"Line {number} of {path} has no {missing[0]!r}.")
            yield record


def _read(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    return read_lines(folder / f"{name}.jsonl", KEYS[name])


def _repair(path: Path) -> None:
    """Takes off a last line that was cut off."""
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


class RunFolder:
    """Writes a run's traces; from any thread.

    Args:
        settings: what must be the same for the run to be resumed.
        resume: go on where an earlier start of the same run ended.

    Raises:
        SolverError: the folder holds another run, one that is not to be resumed, or one that still
            goes on; or it cannot be made.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        self.settings = settings
        self._lock = threading.Lock()
        self._files: dict[str, TextIO] = {}
        self._claim = _claim(folder)
        try:
            self._look(resume)
        except BaseException:
            self.close()
            raise

    def _look(self, resume: bool) -> None:
        folder = self.folder
        earlier = read_settings(folder)
        if earlier is not None and not resume:
            raise SolverError(
                f"{folder} holds a run already; give --resume to go on or another --out."
            )
        if earlier is not None:
            _same_settings(folder, earlier["settings"], self.settings)
        self.round = earlier["round"] + 1 if earlier else 1
        self.finished = {record["id"]: record for record in _read(folder, "problems")}
        if earlier is None and self.finished:
            raise SolverError(f"{folder} has problems but no run.json; choose another --out.")

    def begin(self) -> None:
        """Makes the folder a run's: until then nothing in it has changed."""
        for name in KEYS:
            _repair(self.folder / f"{name}.jsonl")
        (self.folder / "problems.jsonl").touch()
        write_json(self.folder / "run.json", {"settings": self.settings, "round": self.round})

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Appends a line to `name`.jsonl and hands it to the operating system."""
        line = json.dumps({"round": self.round, **record}, ensure_ascii=False) + "\n"
        with self._lock:
            if name not in self._files:
                path = self.folder / f"{name}.jsonl"
                self._files[name] = path.open("a", encoding="utf-8", errors="backslashreplace")
            self._files[name].write(line)
            self._files[name].flush()
            if name == "problems":
                os.fsync(self._files[name].fileno())

    def close(self) -> None:
        """Closes the files and lets another process go on with the run."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None
            with suppress(OSError):
                self.folder.rmdir()  # it is empty where no run began


def _claim(folder: Path) -> int | None:
    """A lock on the folder, which ends with the process; None where the file system has none.

    Raises:
        SolverError: another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SolverError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SolverError(f"The run in {folder} still goes on; wait for it or end it.") from error
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file in one piece: a kill leaves the old or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The content of a run's run.json, None where there is none.

    Raises:
        SolverError: it cannot be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": dict(table["settings"]), "round": int(table["round"])}
    except (ValueError, KeyError, TypeError) as error:
        raise SolverError(f"{path} cannot be read; is {folder} a run's folder?") from error


def _same_settings(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            was, given = (shorten(repr(table.get(key)), 120) for table in (old, new))
            raise SolverError(
                f"{folder} was run with {key} = {was}, not {given}; "
                "resume with the same settings or choose another --out."
            )


def read_run(folder: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The finished problems of a run, each with its attempts in their order.

    Raises:
        SolverError: the folder holds no run, or lacks attempts of a finished problem.
    """
    if not (folder / "problems.jsonl").is_file():
        raise SolverError(f"{folder} holds no run: it has no problems.jsonl.")
    problems = {record["id"]: record for record in _read(folder, "problems")}
    attempts: dict[str, list[dict[str, Any]]] = {key: [] for key in problems}
    for record in _read(folder, "attempts"):
        problem = problems.get(record["id"])
        if problem is not None and problem["round"] == record["round"]:
            attempts[record["id"]].append(record)
    for key, problem in problems.items():
        if len(attempts[key]) < problem["attempts"]:
            raise SolverError(
                f"{folder / 'attempts.jsonl'} lacks attempts at problem {key!r}; "
                "take its line out of problems.jsonl and --resume to run it again."
            )
    return [
        (problem, sorted(attempts[key], key=lambda one: int(one["attempt"])))
        for key, problem in problems.items()
    ]


def statistics_of(record: dict[str, Any], tail: int | None = None) -> AttemptStatistics:
    """What a vote sees of a recorded attempt; `tail` takes its entropy over so many tokens."""
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
    )
