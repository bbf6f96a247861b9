"""The HTTP process's side of the connection to the engine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from ..api_errors import ApiError
from .messages import (
    AskStats,
    Cancel,
    EngineFailed,
    FrameReader,
    Generate,
    Line,
    Message,
    Refused,
    Solve,
    Solved,
    Started,
    Stats,
    Update,
    Updates,
    frame,
)

if TYPE_CHECKING:
    from eightfold.engine import SamplingParams


class EngineClient(asyncio.Protocol):
    """Passes requests to one engine, and its messages to the requests.

    Args:
        connection: this process's end of the socket.

    Attributes:
        running: requests under way by their number.
        ended: what ended the engine; None while it runs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.running: dict[int, Generation | VoteStream] = {}
        self.ended: str | None = None
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._numbers = count()
        self._stats: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @property
    def sequences(self) -> int:
        """Number of sequences that have not finished."""
        return sum(one.left for one in self.running.values() if isinstance(one, Generation))

    async def attach(self) -> None:
        """Read and write on the running event loop from now on."""
        events = asyncio.get_running_loop()
        self._connection.setblocking(False)
        await events.create_connection(lambda: self, sock=self._connection)

    def send(self, message: Message) -> None:
        """Send a message to the engine's process."""
        assert self._transport is not None
        self._transport.write(frame([message]))

    def number(self) -> int:
        """Return a new request's number.

        Raises:
            ApiError: the engine has ended.
        """
        if self.ended is not None:
            raise ApiError("The engine has ended; restart the server.", 503)
        return next(self._numbers)

    async def stats(self) -> dict[str, Any]:
        """Return the engine's counters.

        Raises:
            ApiError: the engine has ended.
        """
        number = self.number()
        self._stats[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(AskStats(number))
            return await self._stats[number]
        finally:
            del self._stats[number]

    # The interface `asyncio.Protocol`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is of another class

    def data_received(self, data: bytes) -> None:
        """Hand the messages to their requests."""
        for message in self._reader.add(data):
            if isinstance(message, Updates):
                for request, sequence, tokens, reason in message.updates:
                    generation = self.running.get(request)
                    if isinstance(generation, Generation):  # else its client has left
                        generation.update(sequence, tokens, reason)
            elif isinstance(message, EngineFailed):
                self._fail(message)
            elif isinstance(message, Stats):
                waiting = self._stats.get(message.request)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message.values)
            else:
                running = self.running.get(message.request)  # type: ignore[union-attr]
                if running is not None:
                    running.receive(message)  # type: ignore[arg-type]

    def connection_lost(self, error: Exception | None) -> None:
        """End: without the engine's process there is nothing to serve."""
        os._exit(1)

    def _fail(self, message: EngineFailed) -> None:
        if message.ended:
            self.ended = message.message
        for number, running in list(self.running.items()):
            running.receive(Refused(number, message.message, 500))
        for waiting in self._stats.values():
            if not waiting.done():
                waiting.set_exception(ApiError(message.message, 503))


class Generation:
    """The sequences of one request.

    Args:
        client: the connection to the engine.
        prompts: token ids of each prompt.
        seeds: for each prompt, the seed of each of its sequences.
        params: sampling parameters, the seed apart.

    Attributes:
        left: number of sequences that have not finished, as far as updates have been read.

    Raises:
        ApiError: the engine has ended.
    """

    def __init__(
        self,
        client: EngineClient,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        params: SamplingParams,
    ) -> None:
        self._client = client
        self._number = client.number()
        self._message = Generate(
            self._number, [list(ids) for ids in prompts], [list(one) for one in seeds], params
        )
        self.left = sum(map(len, seeds))
        self._updates: dict[int, Update] = {}  # not yet read, by sequence
        self._refused: ApiError | None = None
        self._started = False
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Wait until the engine has taken the sequences; they may have to wait for their turn.

        Raises:
            ApiError: a prompt does not fit, or the engine failed.
        """
        self._client.running[self._number] = self
        try:
            self._client.send(self._message)
            while not self._started:
                await self._change()
        except BaseException:
            self.close()
            raise

    async def updates(self) -> AsyncIterator[list[Update]]:
        """Yield what has changed until all sequences have finished.

        If the reader is behind, the updates of a sequence are joined to one.

        Raises:
            ApiError: the engine failed.
        """
        while self.left:
            if not self._updates:
                await self._change()
            updates, self._updates = list(self._updates.values()), {}
            self.left -= sum(update.reason is not None for update in updates)
            yield updates

    async def _change(self) -> None:
        self._changed.clear()
        if self._refused is None:  # else it came while the reader was busy; nothing more will
            await self._changed.wait()
        if self._refused is not None:
            raise self._refused

    def stop(self, index: int) -> None:
        """Cancel one sequence, which then finishes with the reason "cancelled"."""
        self._client.send(Cancel(self._number, index))

    def close(self) -> None:
        """Cancel what still runs before the engine's next step."""
        if self._client.running.pop(self._number, None) is not None:
            self._client.send(Cancel(self._number))

    def update(self, sequence: int, tokens: tuple[int, ...], reason: str | None) -> None:
        """Take what a step did to a sequence; see `Update`."""
        before = self._updates.get(sequence)
        if before is not None:
            tokens = before.tokens + tokens
        self._updates[sequence] = Update(sequence, tokens, reason)
        self._changed.set()

    def receive(self, message: Started | Refused) -> None:
        """Take a message of the engine's process."""
        if isinstance(message, Refused):
            self._refused = ApiError(message.message, message.status, message.param, message.code)
        else:
            self._started = True
        self._changed.set()


class VoteStream:
    """The progress of one problem, and its answer.

    Args:
        client: the connection to the engine.
        problem: the problem.
        seed: chooses the attempts; None takes the solver's.
    """

    def __init__(self, client: EngineClient, problem: str, seed: int | None) -> None:
        self._client = client
        self._problem, self._seed = problem, seed
        self._messages: asyncio.Queue[Line | Solved | Refused] = asyncio.Queue()

    async def items(self) -> AsyncGenerator[str | Solved, None]:
        """Yield lines of progress, and at the end the answer.

        Leaving the iteration early ends the attempts.

        Raises:
            ApiError: the problem cannot be solved, or the engine has ended.
        """
        number = self._client.number()
        self._client.running[number] = self
        try:
            self._client.send(Solve(number, self._problem, self._seed))
            while True:
                message = await self._messages.get()
                if isinstance(message, Refused):
                    raise ApiError(message.message, message.status, code=message.code)
                yield message.text if isinstance(message, Line) else message
                if isinstance(message, Solved):
                    return
        finally:
            del self._client.running[number]
            self._client.send(Cancel(number))

    def receive(self, message: Line | Solved | Refused) -> None:
        """Take a message of the engine's process."""
        self._messages.put_nowait(message)
