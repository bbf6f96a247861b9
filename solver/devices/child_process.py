"""A child process that holds one object, whose methods are called over a pipe.

The child is a plain Python process, not a fork: CUDA does not survive a fork, and a notebook's
`__main__` need not be imported again. It ends when the pipe does, so it never outlives its parent.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CLOSE_SECONDS = 10.0
"""Time for a child to end by itself before it is killed."""

_BOOT = (
    "import sys; sys.path[:] = {path!r}; "
    "from eightfold.solver.devices.child_process import serve; serve({descriptor})"
)


class ChildLostError(RuntimeError):
    """The child process has ended, or does not answer."""


class ForeignError(RuntimeError):
    """An exception of the child that cannot be pickled.

    Attributes:
        kind: name of its type.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


class ChildProcess:
    """Starts a child, which makes an object at once; `ready` waits for that.

    Calls from several threads are answered one after the other.

    Args:
        factory: what makes the object, as "module:name".
        arguments: arguments of the factory, which are pickled.
        environment: variables to set in the child.
        name: name of the child in messages.
        silent: drop what the child prints on standard output; else it goes to standard error.

    Attributes:
        name: the name.
    """

    def __init__(
        self,
        factory: str,
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        name: str = "child",
        silent: bool = False,
    ) -> None:
        self.name = name
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path, descriptor=theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                # The parent's standard output may be a line of JSON.
                stdout=subprocess.DEVNULL if silent else 2,
                # A terminal's Ctrl-C is the parent's business, also while the child starts.
                start_new_session=True,
            )
        from multiprocessing.connection import Connection  # needs the platform's own modules

        self._pipe = Connection(ours.detach())
        self._send((factory, arguments))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def ready(self, timeout: float | None = None) -> Any:
        """Wait for the object, and return what its method `ready` returned.

        Raises:
            ChildLostError: if the process has ended, or does not answer in time.
            Exception: what the factory or `ready` raised.
        """
        return self._answer(timeout)

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Call a method of the object, and return its result.

        Raises:
            ChildLostError: if the process has ended, or does not answer in time; it is killed then.
            Exception: what the method raised.
        """
        with self._lock:
            self._send((method, arguments))
            return self._answer(timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """End the process; may be called more than once."""
        self._pipe.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._lost() from error

    def _answer(self, timeout: float | None) -> Any:
        try:
            if timeout is not None and not self._pipe.poll(timeout):
                self.kill()
                raise ChildLostError(f"The process of {self.name} did not answer; it was ended.")
            fine, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if not fine:
            raise value
        return value

    def _lost(self) -> ChildLostError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return ChildLostError(f"The process of {self.name} has ended ({how}).")


def serve(descriptor: int) -> None:
    """Make the object and answer calls until the pipe ends; the main function of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    from multiprocessing.connection import Connection

    pipe = Connection(descriptor)
    held = None
    try:
        factory, arguments = pipe.recv()

        def make() -> Any:
            nonlocal held
            module, _, name = factory.partition(":")
            held = getattr(importlib.import_module(module), name)(*arguments)
            return held.ready()

        if not _reply(pipe, make):
            return
        while True:
            method, arguments = pipe.recv()
            _reply(pipe, lambda: getattr(held, method)(*arguments))  # noqa: B023 - called at once
    except (EOFError, OSError):
        return  # the parent has closed the pipe, or has ended
    finally:
        close = getattr(held, "close", None)
        if close is not None:
            close()


def _reply(pipe: Connection, action: Any) -> bool:
    """Send what an action returns or raises; return whether it returned."""
    try:
        answer = (True, action())
    except Exception as error:
        answer = (False, _sendable(error))
    pipe.send(answer)
    return answer[0]


def _sendable(error: Exception) -> Exception:
    """Return an exception that arrives as it was sent: not all can be pickled and read again."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    return ForeignError(type(error).__name__, str(error))
