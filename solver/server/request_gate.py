"""Checks each request's key, host and size of body, and counts the statuses of the replies."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from .api_errors import PATHS, ApiError
from .loopback import asks_for_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .server_metrics import ServerMetrics

OPEN_PATHS = ("/health",)
"""Paths that need no key."""

MAX_BODY = 32 << 20
"""Bytes of a request's body; prompts that fit a context are far smaller."""

MAX_DISCARDED = 256 << 20
"""Bytes of a refused body that are read at most."""

TOO_LARGE = f"The request's body is larger than {MAX_BODY >> 20} MiB; send less."


ELSEWHERE = (
    "Without a key, the server answers only to localhost, 127.0.0.1 or [::1]; ask for one of these "
    "names, or start the server with --api-key."
)


class RequestGate:
    """A layer around the application, without tasks or buffers of its own.

    Args:
        app: the application.
        key: what clients must send as a bearer token; None asks for none, and takes requests only
            whose header Host names this machine.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, key: str | None, metrics: ServerMetrics) -> None:
        self._app, self._key, self._metrics = app, key, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        received = 0

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Unknown paths share one name, so that clients cannot add any.
                name = path if path in PATHS else "other"
                self._metrics.requests.labels(name, message["status"]).inc()
            await send(message)

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                await _discard(receive)
                raise HTTPException(413, TOO_LARGE)
            return message

        if self._key is not None and path not in OPEN_PATHS and not self._has_key(headers):
            refused = ApiError("The API key is missing or wrong.", 401, code="invalid_api_key")
        elif self._key is None and path not in OPEN_PATHS and not _from_here(headers):
            refused = ApiError(ELSEWHERE, 403, code="wrong_host")
        elif headers.get("content-length", "0").isdecimal() and (
            int(headers.get("content-length", "0")[:20]) > MAX_BODY
        ):
            refused = ApiError(TOO_LARGE, 413)
        else:
            await self._app(scope, limited, counted)
            return
        await _discard(receive)
        await JSONResponse(refused.body(), refused.status)(scope, receive, counted)

    def _has_key(self, headers: Headers) -> bool:
        assert self._key is not None
        sent = headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(sent.encode(), self._key.encode())


def _from_here(headers: Headers) -> bool:
    """Return whether the client asked for this machine by a name that only it can mean."""
    host = headers.get("host")
    return host is None or asks_for_loopback(host)


async def _discard(receive: Receive) -> None:
    """Read the rest of a body: a client that writes all of it first would not see the answer."""
    left = MAX_DISCARDED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
