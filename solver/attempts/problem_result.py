"""The result of a problem."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from eightfold.common.html_table import html_cells, html_table


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a problem.

    A notebook shows it as a table of the attempts, and `repr` gives one line of figures: neither
    holds token ids or the attempts' text, which are in `attempts`.

    Attributes:
        answer: winner of the vote, or None if no attempt has an answer.
        votes: number of attempts for each answer, the winner first.
        attempts: a JSON-ready record of each attempt (see `attempt_record`).
        seconds: wall-clock time.
        tokens: tokens sampled by all attempts.
        calls, errors: tool calls with an outcome, and those that failed.
        stopped: why no further attempt was awaited: "agreement", "lead", "all ended", "time", ...
        faults: what went wrong in the engine or the solver.
        prompt: token ids of the prompt.
        system: the system message in it.
        distance: how far the problem is from what the model was trained on, if the model's folder
            says so (`eightfold.solver.familiarity`): beyond 1, do not trust the answer.
        note: what to say about such a problem, one sentence; empty if there is nothing to say.
    """

    answer: int | None
    votes: dict[int, int]
    attempts: tuple[dict[str, Any], ...]
    seconds: float
    tokens: int
    calls: int
    errors: int
    stopped: str
    faults: tuple[str, ...] = ()
    prompt: tuple[int, ...] = ()
    system: str = ""
    distance: float | None = None
    note: str = ""

    def __repr__(self) -> str:
        faults = f", faults={len(self.faults)}" if self.faults else ""
        return (
            f"Result(answer={self.answer}, votes={self.votes}, attempts={len(self.attempts)}, "
            f"seconds={self.seconds:.1f}, tokens={self.tokens}, calls={self.calls}, "
            f"errors={self.errors}, stopped={self.stopped!r}{faults})"
        )

    def _repr_html_(self) -> str:
        """Return a heading and a table of the attempts, for notebooks."""
        answer = "none" if self.answer is None else str(self.answer)
        votes = ", ".join(f"{value} &times; {count}" for value, count in self.votes.items())
        faults = "".join(f"<p>fault: {escape(fault)}</p>" for fault in self.faults)
        faults += f"<p>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<p><strong>answer: {answer}</strong> (votes: {votes or 'none'})</p>"
            f"{html_table(_TITLES, map(_attempt_cells, self.attempts))}"
            f"<p>{self.seconds:.1f} s, {self.tokens} tokens; ended by: {escape(self.stopped)}</p>"
            f"{faults}"
        )


_TITLES = ("attempt", "ended as", "answer", "calls", "errors", "tokens")


def _attempt_cells(record: dict[str, Any]) -> str:
    """Return the cells of an attempt's row; attempts are counted from 1 for people."""
    detail = f" ({escape(record['detail'])})" if record["detail"] else ""
    answer = "" if record["answer"] is None else record["answer"]
    cells = (
        record["attempt"] + 1,
        escape(record["ending"]) + detail,
        answer,
        record["calls"],
        record["errors"],
        record["tokens"],
    )
    return html_cells(cells)
