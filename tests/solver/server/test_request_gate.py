"""Requests are let in by key, host and size, before anything reads them (1 s)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eightfold.solver.server.loopback import asks_for_loopback
from eightfold.solver.server.request_gate import MAX_BODY, RequestGate
from eightfold.solver.server.server_metrics import ServerMetrics


def status(key: str | None, path: str = "/v1/models", **headers: str) -> int:
    """Return the status of a request whose application answers 200."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": named}
    asyncio.run(RequestGate(application, key, ServerMetrics())(scope, receive, send))
    code: int = sent[0]["status"]
    return code


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *(("localhost:8000", True), ("LOCALHOST", True), ("127.0.0.1:8000", True)),
        *(("127.8.8.8", True), ("[::1]:8000", True), ("localhost.", True)),
        *(("evil.example:8000", False), ("localhost.evil.example", False), ("", False)),
        *(("127.0.0.1.evil.example", False), ("[::1", False), ("192.0.2.2:8000", False)),
    ],
)
def test_without_a_key_only_names_of_this_machine_are_answered(host: str, local: bool) -> None:
    assert asks_for_loopback(host) is local
    assert status(None, host=host) == (200 if local else 403)
    assert status(None, "/health", host=host) == 200
    assert status("k", host=host, authorization="Bearer k") == 200


def test_key_and_size_are_checked() -> None:
    assert status("k", host="localhost") == 401
    assert status("k", host="localhost", authorization="Bearer \u00e9") == 401
    assert status(None) == 200, "clients of HTTP 1.0 name no host"
    assert status(None, host="localhost", content_length=str(MAX_BODY + 1)) == 413
