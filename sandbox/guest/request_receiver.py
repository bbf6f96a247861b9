"""The kernel's end of the pool's channel, which it serves beside the channels of Jupyter.

A request becomes an ordinary message of the kernel's own shell channel, so that cells of the pool
and of Jupyter clients take the same way and turns. See `host/request_channel.py` for the format.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

import zmq

_IDENTITY = b"pool"  # of the sender; no client has it, so that ZeroMQ drops the reply
_LENGTH = struct.Struct("<I")
_READ_BYTES = 1 << 18
_NAME_LIMIT = 160  # characters of an exception's name


class RequestReceiver:
    """Passes the pool's requests to the kernel, and their replies back.

    Args:
        kernel: the kernel, which calls `answer`.
        connection: the kernel's end of the channel.
    """

    def __init__(self, kernel: Any, connection: socket.socket) -> None:
        self._session = kernel.session
        self._stream = kernel.shell_stream
        self._connection = connection
        self._incoming = bytearray()
        self._numbers: dict[str, int] = {}  # id of a message: number of the request
        kernel.receiver = self

    def start(self, loop: Any) -> None:
        """Serve requests in an event loop of asyncio."""
        loop.add_reader(self._connection.fileno(), self._receive)

    def _receive(self) -> None:
        data = self._connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        if not data:  # the pool has given this kernel up without ending it
            os._exit(0)
        self._incoming += data
        while len(self._incoming) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                return
            request = json.loads(self._incoming[_LENGTH.size : end])
            del self._incoming[:end]
            self._forward(request)

    def _forward(self, request: dict[str, Any]) -> None:
        content = {
            "code": request["code"],
            "silent": request["silent"],
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self._session.msg("execute_request", content)
        self._numbers = {message["header"]["msg_id"]: request["id"]}
        frames = map(zmq.Frame, self._session.serialize(message, ident=_IDENTITY))
        # The callback by which the stream hands over what comes from clients.
        self._stream._run_callback(self._stream._recv_callback, list(frames))

    def answer(self, message_id: str, content: dict[str, Any]) -> None:
        """Reply to the pool if the message `message_id` is its request.

        Args:
            message_id: id of an execute request.
            content: content of Jupyter's reply to it.
        """
        number = self._numbers.pop(message_id, None)
        if number is None:
            return
        reply = {"id": number, "status": content.get("status")}
        if "ename" in content:
            reply["ename"] = str(content["ename"])[:_NAME_LIMIT]
        data = json.dumps(reply).encode()
        self._connection.sendall(_LENGTH.pack(len(data)) + data)
