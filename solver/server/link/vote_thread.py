"""The whole solver as a model: a problem on a thread of its own, told as it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...display.progress_text import progress_text, votes_text
from ...report.conversation import Kind, Piece, turn_pieces
from .messages import Line, Message, Refused, Solve, Solved, refusal_code

if TYPE_CHECKING:
    from ...solver import Progress, Result, Solver

PROGRESS_SECONDS = 1.0
"""Seconds between two lines of progress."""

POLL_SECONDS = 0.05
"""Longest time that a problem goes on after its client has left."""


class ClientLeftError(Exception):
    """Ends a problem whose client has gone."""


class VoteThread:
    """Solves the problem of one request.

    Args:
        solver: the solver.
        message: the request.
        send: passes a message to the HTTP process; called on any thread.
    """

    def __init__(self, solver: Solver, message: Solve, send: Callable[[Message], None]) -> None:
        self._solver, self._message, self._send = solver, message, send
        self._left = threading.Event()
        self._told = 0.0
        threading.Thread(target=self._run, name="vote", daemon=True).start()

    def leave(self) -> None:
        """End the attempts, because nobody waits for the answer."""
        self._left.set()

    def _run(self) -> None:
        message = self._message
        key = message.problem if message.seed is None else f"{message.seed}/{message.problem}"
        try:
            result = self._solver.solve(
                message.problem, key=key, on_progress=self._on_progress, interval=POLL_SECONDS
            )
            self._send(self._answer(result))
        except ClientLeftError:
            pass
        except Exception as error:
            status = 400 if isinstance(error, ValueError) else 500
            said = str(error) or type(error).__name__
            self._send(Refused(message.request, said, status, code=refusal_code(said)))

    def _on_progress(self, progress: Progress) -> None:
        if self._left.is_set():
            raise ClientLeftError
        if progress.seconds - self._told >= PROGRESS_SECONDS:
            self._told = progress.seconds
            self._send(Line(self._message.request, progress_text(progress)))

    def _answer(self, result: Result) -> Solved:
        """Return the answer with the text of the first attempt that voted for it."""
        request, usage = self._message.request, vote_usage(result)
        if result.answer is None:
            faults = "".join(f" {fault}." for fault in result.faults[:3])
            said = f"No attempt has an answer ({result.stopped}).{faults}"
            return Solved(request, said, "", usage)
        winner = next(one for one in result.attempts if one["answer"] == result.answer)
        *earlier, final = winner["turns"]
        pieces = [piece for turn in earlier for piece in turn_pieces(turn)]
        pieces += [piece for piece in turn_pieces(final) if piece.kind is not Kind.TEXT]
        parts = [_readable(piece) for piece in pieces]
        reading = self._solver.protocol.read_turn(final["opener"], final["tokens"])
        content = reading.final.strip()
        box = f"\\boxed{{{result.answer}}}"
        if box not in content:
            content = f"{content}\n\n{box}".strip()
        votes = f"votes: {votes_text(result.votes)}"
        parts += [votes, *([result.note] if result.note else [])]
        return Solved(request, content, "\n\n".join(parts), usage)


def _readable(piece: Piece) -> str:
    """Return a piece of a conversation as text: of a call the code, and what it printed."""
    if piece.call is None:
        return piece.text
    output = f"output ({piece.call['status']}):\n{piece.call['output']}"
    return f"```python\n{piece.text}\n```\n\n{output}"


def vote_usage(result: Result) -> dict[str, Any]:
    """Return the usage of a voted answer: tokens of all attempts, votes, and how it ended."""
    prompt = len(result.prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": result.tokens,
        "total_tokens": prompt + result.tokens,
        "votes": {str(answer): count for answer, count in result.votes.items()},
        "attempts": len(result.attempts),
        "calls": result.calls,
        "stopped": result.stopped,
    }
