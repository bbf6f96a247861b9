"""Server-sent events as bytes, and answers that end as soon as their client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi.responses import Response

from .api_errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

T = TypeVar("T")

END = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class EventWriter:
    """Writes the events of one stream, which share the fields of a head.

    Args:
        head: the fields.
    """

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = f"data: {_encode(head)[:-1]},"

    def choice(self, choice: dict[str, Any]) -> bytes:
        """Return the event that holds one choice."""
        return f'{self._head}"choices":[{_encode(choice)}]}}\n\n'.encode()

    def delta(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        """Return the event that holds what is new in a choice of a conversation."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self.choice(choice)

    def fields(self, choices: list[dict[str, Any]], **fields: Any) -> bytes:
        """Return an event with further fields."""
        return f"{self._head}{_encode({'choices': choices, **fields})[1:]}\n\n".encode()


class EventStream(Response):
    """Sends events as they come; an error becomes the last of them.

    Args:
        events: the events as bytes, several at a time if there are; closed at the end.
        on_end: called at the end, even if no event was asked for.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], on_end: Callable[[], None] | None = None
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or as much of it as the client waits for."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            with suppress(ClientGoneError):
                await unless_gone(receive, self._send_events(send))
        finally:
            if self._on_end is not None:
                self._on_end()

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except ApiError as error:
                event = f"data: {_encode(error.body())}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": END})


class ClientGoneError(ApiError):
    """The client has left before its answer was complete."""

    def __init__(self) -> None:
        super().__init__("The client has left.", 499)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but end it as soon as the client disconnects.

    Raises:
        ClientGoneError: the client has left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def last_item(items: AsyncIterator[T]) -> T:
    """Return the last item."""
    found = [item async for item in items]
    return found[-1]
