"""The figures of a run in progress: what is done, right, and still to come."""

from __future__ import annotations

import time
from typing import Any

from eightfold.common.counted_noun import counted

from ..display.progress_text import duration
from .run_folder import FinishedProblem, RunFolder


class RunTally:
    """Counts the problems of a run.

    Args:
        total: number of problems.
        folder: the run's folder, whose finished problems count.

    Attributes:
        total, done: numbers of problems, and of those that are finished.
        known, right: numbers of finished problems whose answer is known, and that were solved.
    """

    def __init__(self, total: int, folder: RunFolder) -> None:
        self.total = total
        self.done = len(folder.finished)
        self.known = self.right = 0
        for one in folder.finished.values():
            self._count(one)
        self._solved_here = 0  # not counting what earlier starts finished
        self._began = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Count a problem, given its line of problems.jsonl."""
        self.done += 1
        self._solved_here += 1
        self._count(FinishedProblem(record["answer"], record["truth"]))

    def status(self, speed: float) -> str:
        """Return one line: problems done, accuracy so far, time passed and time to go, speed.

        Args:
            speed: tokens per second; 0 leaves them out.
        """
        passed = time.monotonic() - self._began
        text = f"{self.done}/{counted(self.total, 'problem')}"
        if self.done:
            known = f"{self.right}/{self.known} right" if self.known else "no answers known"
            text += f" | {known}"
        text += f" | {duration(passed)}"
        if self._solved_here:
            to_go = passed / self._solved_here * (self.total - self.done)
            text += f", about {duration(to_go)} to go"
        return f"{text} | {speed:.0f} tokens/s" if speed else text

    def _count(self, one: FinishedProblem) -> None:
        if one.truth is not None:
            self.known += 1
            self.right += one.answer == one.truth
