"""The whole solver as a model: what requests it takes, and in what order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from .api_errors import ApiError
from .chat_prompts import text_of
from .link.engine_client import VoteStream
from .link.engine_clients import EngineClients
from .link.messages import Solved
from .request_bodies import ChatBody

UNSUPPORTED = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "max_tokens"),
    *("max_completion_tokens", "tools", "reasoning_effort", "chat_template_kwargs"),
)


class VoteService:
    """Solves the problems of requests, some at a time; the others wait in order.

    Args:
        engines: the connections to the engines; the attempts are spread over them anyway.
        parallel: number of problems solved at the same time.
    """

    def __init__(self, engines: EngineClients, parallel: int) -> None:
        self._engines = engines
        self._free = asyncio.Semaphore(parallel)

    def problem_of(self, body: ChatBody) -> str:
        """Return the problem that a request states.

        Raises:
            ApiError: the request holds a conversation, or options that a vote does not have.
        """
        fields = [name for name in UNSUPPORTED if getattr(body, name) not in (None, [], "", {})]
        if body.n != 1:
            fields.append("n")
        if body.ignore_eos:
            fields.append("ignore_eos")
        if fields:
            raise ApiError(
                f"The voting model does not take {' or '.join(fields)}, because the server's own "
                "options hold for it; send the problem and a seed only.",
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
        problem = "\n\n".join(text_of(i, message) for i, message in enumerate(body.messages))
        if not problem.strip():
            raise ApiError("The problem is empty; give its text.", 400, "messages")
        return problem

    async def solve(self, problem: str, seed: int | None) -> AsyncGenerator[str | Solved, None]:
        """Yield lines of progress, and at the end the answer.

        Leaving the iteration early ends the attempts.

        Raises:
            ApiError: the problem cannot be solved, or the engine has ended.
        """
        if self._free.locked():
            yield "waits for an earlier problem"
        async with (
            self._free,
            aclosing(VoteStream(self._engines.least_busy(), problem, seed).items()) as items,
        ):
            async for item in items:
                yield item
