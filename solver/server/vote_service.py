"""The whole solver as a model: eight attempts, a vote, and the reasoning of a winning attempt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..display.progress_text import progress_text, votes_text
from .api_errors import ApiError
from .chat_prompts import text_of
from .request_bodies import ChatBody

if TYPE_CHECKING:
    from ..solver import Progress, Result, Solver

PROGRESS_SECONDS = 1.0
"""Seconds between two lines of progress in a stream."""

POLL_SECONDS = 0.05
"""Longest time that a problem goes on after its client has left."""

UNSUPPORTED = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "max_tokens"),
    *("max_completion_tokens", "tools"),
)


class ClientLeftError(Exception):
    """Ends a problem whose client has gone."""


@dataclass(frozen=True)
class VoteAnswer:
    """The answer to a problem.

    Attributes:
        content: the final text of a winning attempt, with the voted integer in a box.
        reasoning: what that attempt wrote and ran before.
        result: the result.
    """

    content: str
    reasoning: str
    result: Result


class VoteService:
    """Solves the problems of requests, some at a time; the others wait in order.

    Args:
        solver: the solver.
        parallel: number of problems solved at the same time.
    """

    def __init__(self, solver: Solver, parallel: int) -> None:
        self._solver = solver
        self._free = asyncio.Semaphore(parallel)

    def problem_of(self, body: ChatBody) -> str:
        """Return the problem that a request states.

        Raises:
            ApiError: the request holds a conversation, or options that a vote does not have.
        """
        fields = [name for name in UNSUPPORTED if getattr(body, name) not in (None, [], "")]
        if body.n != 1:
            fields.append("n")
        if fields:
            raise ApiError(
                f"The voting model does not take {', '.join(fields)}: the server's own settings "
                "hold for it; leave them out.",
                400,
                fields[0],
            )
        roles = [message.role for message in body.messages]
        if roles.count("user") != 1 or not set(roles) <= {"system", "developer", "user"}:
            raise ApiError(
                "The voting model takes one problem: one user message, and no earlier answers.",
                400,
                "messages",
            )
        return "\n\n".join(text_of(i, message) for i, message in enumerate(body.messages))

    async def solve(self, problem: str, seed: int | None) -> AsyncIterator[str | VoteAnswer]:
        """Yield lines of progress, and at the end the answer.

        Leaving the iteration early ends the attempts.

        Raises:
            ApiError: the problem cannot be solved, or the engine has ended.
        """
        events = asyncio.get_running_loop()
        lines: asyncio.Queue[str | VoteAnswer | Exception] = asyncio.Queue()
        left = threading.Event()
        last = 0.0

        def tell(item: str | VoteAnswer | Exception) -> None:
            events.call_soon_threadsafe(lines.put_nowait, item)

        def on_progress(progress: Progress) -> None:
            nonlocal last
            if left.is_set():
                raise ClientLeftError
            if progress.seconds - last >= PROGRESS_SECONDS:
                last = progress.seconds
                tell(progress_text(progress))

        def run() -> None:
            try:
                key = problem if seed is None else f"{seed}/{problem}"
                tell(
                    self._answer(
                        self._solver.solve(
                            problem, key=key, on_progress=on_progress, interval=POLL_SECONDS
                        )
                    )
                )
            except Exception as error:
                tell(error)

        async with self._free:
            threading.Thread(target=run, name="vote", daemon=True).start()
            try:
                while True:
                    item = await lines.get()
                    if isinstance(item, Exception):
                        status = 400 if isinstance(item, ValueError) else 500
                        raise ApiError(str(item) or type(item).__name__, status) from item
                    yield item
                    if isinstance(item, VoteAnswer):
                        return
            finally:
                left.set()

    def _answer(self, result: Result) -> VoteAnswer:
        """Return the answer with the text of the first attempt that voted for it."""
        if result.answer is None:
            faults = "".join(f" {fault}." for fault in result.faults[:3])
            said = f"No attempt has an answer ({result.stopped}).{faults}"
            return VoteAnswer(said, "", result)
        winner = next(one for one in result.attempts if one["answer"] == result.answer)
        *earlier, final = winner["turns"]
        parts = []
        for turn in earlier:
            parts.append(turn["opener"] + turn["text"])
            parts += [f"output ({call['status']}):\n{call['output']}" for call in turn["calls"]]
        reading = self._solver.protocol.read_turn(final["opener"], final["tokens"])
        content = reading.final.strip()
        box = f"\\boxed{{{result.answer}}}"
        if box not in content:
            content = f"{content}\n\n{box}".strip()
        votes = f"votes: {votes_text(result.votes)}"
        return VoteAnswer(content, "\n\n".join([*parts, votes]), result)


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
