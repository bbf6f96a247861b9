"""Recognizes an attempt that only repeats calls which have failed before."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from eightfold.common.error_text import one_line

from .call_record import CallRecord

MAX_REPETITIONS = 3
"""Number of failures, each seen before, after which an attempt ends: the same call has then failed
four times. In recorded attempts no one came back from the second (docs/accuracy.md)."""


class RepeatedFailures:
    """Counts failures that an attempt has seen before, without any new outcome in between.

    A failure is the same as another one if code and exception are; of calls that cannot be read,
    if the reason is, so that it does not matter with which arguments a tool is called that does not
    exist. Calls that fail in turns, one after the other, are repetitions too.

    Args:
        note: text for the model behind the output of a repetition, with {count} for the number of
            times that the call has failed.

    Attributes:
        count: number of repetitions since the last new outcome.
        last: last line of the output of the last failure.
    """

    def __init__(self, note: str) -> None:
        self.count = 0
        self.last = ""
        self._note = note
        self._seen: Counter[tuple[str | None, str | None]] = Counter()

    @property
    def hopeless(self) -> bool:
        """True if the attempt does nothing but repeat itself."""
        return self.count >= MAX_REPETITIONS

    def add(self, record: CallRecord) -> CallRecord:
        """Count a call; return its record, whose text tells the model about a repetition."""
        if record.status == "ok":
            self.count = 0
            return record
        self.last = one_line((record.text.strip() or record.status).splitlines()[-1], 200)
        key = (None, record.text) if record.code is None else (record.code.strip(), record.error)
        self._seen[key] += 1
        if self._seen[key] == 1:
            self.count = 0
            return record
        self.count += 1
        note = self._note.replace("{count}", str(self._seen[key]))
        return replace(record, text=f"{record.text.rstrip()}\n{note}") if note else record
