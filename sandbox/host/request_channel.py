"""The pool's connection to one kernel: a pair of unix sockets that carries requests and replies.

Everything on it is bounded before it is read: a kernel runs untrusted code, which holds the other
end. A reply is short, the text of a cell comes by the shared text page, and a kernel that sends
more than the replies that it owes loses its connection. The channels of Jupyter, which other
clients use, lead out of the kernel as well, but the pool reads none of them.

Each message is its length as a little-endian u32, then that many bytes of JSON.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any

MAX_REPLY_BYTES = 4096
MAX_READS = 256  # for one request; each read costs the pool a turn of a poll
MAX_STRAY_REPLIES = 16  # replies to no current request, such as that of an interrupted one
_LENGTH = struct.Struct("<I")


class ChannelError(Exception):
    """The kernel has closed the channel, or sends what no kernel sends."""


class RequestChannel:
    """Sends requests to a kernel and receives their replies, never waiting for either.

    Args:
        connection: the pool's end, which belongs to this object.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._number = 0
        self._reads = self._strays = 0

    def fileno(self) -> int:
        """Return the descriptor to poll for `events`."""
        return self._connection.fileno()

    @property
    def events(self) -> int:
        """The events of `select.poll` that this channel waits for."""
        return select.POLLIN | (select.POLLOUT if self._outgoing else 0)

    def send(self, code: str, *, silent: bool = False) -> int:
        """Queue a request to run `code`, and return its number.

        Raises:
            ChannelError: the kernel has closed the channel.
        """
        self._number += 1
        self._reads = 0
        data = json.dumps({"id": self._number, "code": code, "silent": silent}).encode()
        # What is left of a request that the kernel has not read stays, as it may be half sent.
        self._outgoing += _LENGTH.pack(len(data)) + data
        self.flush()
        return self._number

    def flush(self) -> None:
        """Send as much as the kernel takes.

        Raises:
            ChannelError: the kernel has closed the channel.
        """
        try:
            while self._outgoing:
                del self._outgoing[: self._connection.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelError from error

    def receive(self, number: int) -> dict[str, Any] | None:
        """Return the reply to request `number`, or None if it has not come.

        Raises:
            ChannelError: the kernel has closed the channel, or sends what no kernel sends.
        """
        self._reads += 1
        if self._reads > MAX_READS:
            raise ChannelError
        try:
            data = self._connection.recv(2 * MAX_REPLY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelError from error
        if not data:
            raise ChannelError
        self._incoming += data
        while (reply := self._next_reply()) is not None:
            if reply.get("id") == number:
                return reply
            self._strays += 1
            if self._strays > MAX_STRAY_REPLIES:
                raise ChannelError
        return None

    def _next_reply(self) -> dict[str, Any] | None:
        """Take the next complete message from what has come in."""
        if len(self._incoming) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._incoming)
        if length > MAX_REPLY_BYTES:
            raise ChannelError
        end = _LENGTH.size + length
        if len(self._incoming) < end:
            return None
        data = bytes(self._incoming[_LENGTH.size : end])
        del self._incoming[:end]
        try:
            reply = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ChannelError from error
        if not isinstance(reply, dict):
            raise ChannelError
        return reply

    def close(self) -> None:
        """Close the pool's end."""
        self._connection.close()
