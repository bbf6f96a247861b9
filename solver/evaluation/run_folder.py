"""The folder of a run: its settings and the records of its problems and attempts.

    run.json         the settings, which must be the same to resume the run
    problems.jsonl   one line per finished problem
    attempts.jsonl   one line per ended attempt
    summary.json     written when the run is over

A run may be killed at any time. The line of a problem is written after those of its attempts.
Both hold the `round`, which counts the starts of the run: it tells the attempts at a problem that
a kill left unfinished from those of a later start. A problem is solved again, in a round of its
own, if the machine failed attempts at it; its last line counts.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

from eightfold.common.file_errors import path_in_errors

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


class RunFolder:
    """Writes the records of a run; may be used from any thread.

    Args:
        folder: made if it does not exist.
        settings: what must be the same to resume the run.
        resume: continue an earlier start of the same run.

    Attributes:
        folder: the folder.
        settings: the settings.
        round: number of this start of the run, from 1.
        finished: the records of the problems that earlier starts finished, by id.
        count: number of problems finished in all.

    Raises:
        SolverError: the folder cannot be made, or holds a run that is still in progress, that has
            other settings, or that is not to be resumed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        self.settings = settings
        self._lock = threading.Lock()
        self._files: dict[str, TextIO] = {}
        self._folder_lock = _lock_folder(folder)
        try:
            self._read_earlier(resume)
        except BaseException:
            self.close()
            raise

    def _read_earlier(self, resume: bool) -> None:
        """Read what earlier starts left behind."""
        folder = self.folder
        earlier = read_settings(folder)
        if earlier is not None and not resume:
            raise SolverError(
                f"{folder} already holds a run; continue it with --resume or give another --out."
            )
        if earlier is not None:
            _check_same_settings(folder, earlier["settings"], self.settings)
        self.round = earlier["round"] + 1 if earlier else 1
        # A problem with lost attempts is solved again.
        self.finished = {
            record["id"]: record
            for record in _read_records(folder, "problems")
            if not record.get("lost")
        }
        self.count = len(self.finished)
        if earlier is None and self.finished:
            raise SolverError(f"{folder} has problems but no run.json; choose another --out.")

    def begin(self) -> None:
        """Start to write. Until then, nothing in the folder has changed."""
        for name in KEYS:
            _drop_partial_line(self.folder / f"{name}.jsonl")
        (self.folder / "problems.jsonl").touch()
        write_json(self.folder / "run.json", {"settings": self.settings, "round": self.round})

    def next_round(self) -> int:
        """Return the number of a new round, for a problem that this start solves once more."""
        with self._lock:
            self.round += 1
            write_json(self.folder / "run.json", {"settings": self.settings, "round": self.round})
            return self.round

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Append a line to `name`.jsonl and hand it to the operating system.

        The line of a problem is also forced to the disk.
        """
        line = json.dumps({"round": self.round, **record}, ensure_ascii=False) + "\n"
        path = self.folder / f"{name}.jsonl"
        with self._lock, path_in_errors(path):
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8", errors="backslashreplace")
            self._files[name].write(line)
            self._files[name].flush()
            if name == "problems":
                os.fsync(self._files[name].fileno())
                self.count += 1

    def close(self) -> None:
        """Close the files and let other processes resume the run."""
        with self._lock:
            for file in self._files.values():
                with suppress(OSError):  # of a line that could not be written, and was told
                    file.close()
            self._files.clear()
            if self._folder_lock is not None:
                os.close(self._folder_lock)
                self._folder_lock = None
            with suppress(OSError):
                self.folder.rmdir()  # succeeds only if the run did not begin


def read_run(folder: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Read the finished problems of a run.

    Returns:
        The record of each problem, with the records of its attempts in order of their numbers.

    Raises:
        SolverError: the folder holds no run, is damaged, or lacks attempts at a finished problem.
    """
    if not (folder / "problems.jsonl").is_file():
        raise SolverError(f"{folder} holds no run: it has no problems.jsonl.")
    problems = {record["id"]: record for record in _read_records(folder, "problems")}
    attempts: dict[str, list[dict[str, Any]]] = {key: [] for key in problems}
    for record in _read_records(folder, "attempts"):
        problem = problems.get(record["id"])
        if problem is not None and problem["round"] == record["round"]:
            attempts[record["id"]].append(record)
    for key, problem in problems.items():
        if len(attempts[key]) < problem["attempts"]:
            raise SolverError(
                f"{folder / 'attempts.jsonl'} lacks attempts at problem {key!r}; "
                "remove its line from problems.jsonl and use --resume to run it again."
            )
    return [
        (problem, sorted(attempts[key], key=lambda one: int(one["attempt"])))
        for key, problem in problems.items()
    ]


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the content of a run's run.json, or None if there is none.

    Raises:
        SolverError: the file cannot be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": dict(table["settings"]), "round": int(table["round"])}
    except (ValueError, KeyError, TypeError) as error:
        raise SolverError(f"{path} cannot be read; is {folder} the folder of a run?") from error


def read_lines(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the objects in a JSON Lines file, without a last line that a kill cut off.

    Args:
        path: the file; if it does not exist, nothing is yielded.
        keys: what each object must have.

    Raises:
        SolverError: a line is not a JSON object with these keys.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:  # not JSON, or not UTF-8
                raise SolverError(f"Line {number} of {path} is not JSON: {error}.") from error
            if not isinstance(record, dict):
                raise SolverError(f"Line {number} of {path} is not a JSON object.")
            missing = [key for key in keys if key not in record]
            if missing:
                raise SolverError(f"Line {number} of {path} has no {missing[0]!r}.")
            yield record


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically: a kill leaves either the old content or the new."""
    temporary = path.with_suffix(".tmp")
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with path_in_errors(path):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


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


def _read_records(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    return read_lines(folder / f"{name}.jsonl", KEYS[name])


def _drop_partial_line(path: Path) -> None:
    """Truncate a file after its last complete line."""
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _lock_folder(folder: Path) -> int | None:
    """Make the folder and lock it until the process ends.

    Returns:
        The descriptor that holds the lock, or None if the file system has no locks.

    Raises:
        SolverError: another process holds the lock, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SolverError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    try:
        import fcntl  # Windows has none, and no locks of folders
    except ImportError:
        os.close(descriptor)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SolverError(
            f"The run in {folder} is still in progress; wait for it or stop it."
        ) from error
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _check_same_settings(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise SolverError if a setting differs; an older version did not record all of them."""
    for key in sorted(old):
        if old.get(key) != new.get(key):
            was, given = (shorten(repr(table.get(key)), 120) for table in (old, new))
            raise SolverError(
                f"{folder} was run with {key} = {was}, not {given}; "
                "resume with the same settings or choose another --out."
            )
