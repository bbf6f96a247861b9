"""The HTTP process: `python -m eightfold.solver.server.link.http_main LISTENING CONNECTION...`.

The arguments are numbers of open sockets, which the engine's process passes on: the one that
listens, and a connection for each engine.
"""

from __future__ import annotations

import os
import socket
import sys

import transformers  # noqa: F401  # takes seconds, while the engine's process loads the model
import uvicorn

from ..server_app import create_app
from .engine_client import EngineClient
from .engine_clients import EngineClients
from .messages import FrameReader, Ready, Setup

PIECE = 1 << 20
GRACE_SECONDS = 5
KEEP_ALIVE_SECONDS = 60


class HttpServer(uvicorn.Server):
    """A server that tells the engine's process when it answers requests."""

    clients: EngineClients

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.clients.first.send(Ready())


def receive_setup(connection: socket.socket) -> Setup:
    """Wait for what is to be served; end if the engine's process does."""
    reader = FrameReader()
    while True:
        piece = connection.recv(PIECE)
        if not piece:
            os._exit(0)
        for message in reader.add(piece):
            assert isinstance(message, Setup)
            return message


def main() -> None:
    """Serve until the process is told to end."""
    listening, *connections = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    setup = receive_setup(connections[0])
    clients = EngineClients([EngineClient(connection) for connection in connections])
    config = uvicorn.Config(
        create_app(setup, clients),
        log_level=setup.log_level,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = HttpServer(config)
    server.clients = clients
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
