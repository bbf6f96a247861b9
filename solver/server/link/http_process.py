"""The HTTP process as the engine's process sees it: started, told what to serve, and ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING

from ...solver_config import SolverError
from .engine_requests import EngineRequests
from .messages import Setup, frame

if TYPE_CHECKING:
    from ...solver import Solver

CHILD = "eightfold.solver.server.link.http_main"

SOCKET_BYTES = 4 << 20
"""Room for updates in the socket between the processes."""


class HttpProcess:
    """A process that answers HTTP, so that doing so never takes the interpreter from the engine.

    It starts at once, and imports what it needs while the model is loaded. It ends if this process
    does, however that ends.

    Args:
        listening: the socket that listens; it is given away.
        engines: number of engines that the solver will have.

    Attributes:
        pid: the process's number.
    """

    def __init__(self, listening: socket.socket, engines: int = 1) -> None:
        pairs = [socket.socketpair() for _ in range(engines)]
        self._connections = [own for own, _ in pairs]
        for one in chain.from_iterable(pairs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        with ExitStack() as given, listening:
            others = [given.enter_context(other) for _, other in pairs]
            numbers = [listening.fileno(), *(other.fileno() for other in others)]
            # A session of its own keeps a terminal's Ctrl-C for this process, which decides.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD, *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._requests: list[EngineRequests] = []
        self._told_to_end = False

    def serve(
        self,
        solver: Solver,
        name: str,
        *,
        key: str | None = None,
        parallel: int = 1,
        log_level: str = "warning",
    ) -> None:
        """Serve a solver and its model; return once requests are answered.

        Args:
            solver: the solver; it stays the caller's to close, after `close`.
            name: name of the model in requests.
            key: what clients must send as a bearer token; None asks for none.
            parallel: number of problems that the voting model solves at the same time.
            log_level: level of the HTTP server's log.

        Raises:
            ChildProcessError: the HTTP process has ended.
        """
        protocol = solver.protocol
        setup = Setup(
            name=name,
            vote_name=f"{name}:vote{solver.config.attempts}",
            key=key,
            parallel=parallel,
            family=protocol.family,
            efforts=protocol.efforts,
            effort=solver.config.reasoning_effort,
            tokenizer=protocol.tokenizer,
            defaults=solver.sampling,
            ends=tuple(sorted(protocol.pause_token_ids)),
            log_level=log_level,
        )
        try:
            self._connections[0].sendall(frame([setup]))
        except OSError:
            self.wait()
        self._requests = [
            EngineRequests(solver, loop, connection)
            for loop, connection in zip(solver.loops, self._connections, strict=True)
        ]
        first = self._requests[0]
        first.ready.wait()
        if first.lost:
            self.wait()

    def wait(self) -> None:
        """Return once the process has ended because it was told to.

        Raises:
            ChildProcessError: it ended by itself.
        """
        code = self._process.wait()
        if not self._told_to_end:
            said = f"The HTTP process ended with code {code}; start the server again."
            raise ChildProcessError(said)

    def end(self) -> None:
        """Tell the process to end after the answers under way, in five seconds at most."""
        self._told_to_end = True
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the process now, if it runs, and all requests."""
        self._process.kill()
        self._process.wait()
        for requests in self._requests:
            requests.close()
        for connection in self._connections:
            connection.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a taken port is reported before the model is loaded.

    Raises:
        SolverError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SolverError(
            f"The server cannot listen on {host}, port {port}: {reason}; choose another --port or "
            "--host."
        ) from error
    return listening
