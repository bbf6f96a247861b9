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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

from eightfold.common.file_errors import path_in_errors

from ..solver_config import SolverError
from .run_reader import KEYS, read_lines

READ_BYTES = 1 << 16
"""Bytes that are read at a time to find the end of the last complete line."""


@dataclass(frozen=True, slots=True)
class FinishedProblem:
    """What is kept in memory of a problem that an earlier start of a run finished.

    Attributes:
        answer: the answer that was given, or None.
        truth: the right one, or None if it is not known.
    """

    answer: int | None
    truth: int | None


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
        finished: the problems that earlier starts finished, by id.
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
            record["id"]: FinishedProblem(record["answer"], record["truth"])
            for record in read_lines(folder / "problems.jsonl", KEYS["problems"])
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

    def write(self, name: str, record: dict[str, Any], *, sync: bool = True) -> None:
        """Append a line to `name`.jsonl and hand it to the operating system.

        The line of a problem is also forced to the disk, unless `sync` is False; `sync_problems`
        does so for several lines at once.
        """
        line = json.dumps({"round": self.round, **record}, ensure_ascii=False) + "\n"
        path = self.folder / f"{name}.jsonl"
        with self._lock, path_in_errors(path):
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8", errors="backslashreplace")
            self._files[name].write(line)
            self._files[name].flush()
            if name == "problems":
                self.count += 1
                if sync:
                    os.fsync(self._files[name].fileno())

    def sync_problems(self) -> None:
        """Force the lines of problems that were written to the disk."""
        path = self.folder / "problems.jsonl"
        with self._lock, path_in_errors(path):
            if "problems" in self._files:
                os.fsync(self._files["problems"].fileno())

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


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically: a kill leaves either the old content or the new."""
    temporary = path.with_suffix(".tmp")
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with path_in_errors(path):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def _drop_partial_line(path: Path) -> None:
    """Truncate a file after its last complete line."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - READ_BYTES)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        file.truncate(end)


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
            what = "other problems" if key == "problems" else f"{key} = {was}, not {given}"
            raise SolverError(
                f"{folder} was run with {what}; "
                "resume with the same settings or choose another --out."
            )
