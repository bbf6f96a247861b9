"""Jupyter's message format (protocol 5.3), as far as a client of the shell channel needs it.

A message consists of frames: a delimiter, a signature, then the header, the parent header, the
metadata and the content as JSON. The signature is the HMAC-SHA256 of the last four. (Source: the
documentation of jupyter_client, "Messaging in Jupyter", section "The Wire Protocol".)

The pool uses this codec instead of jupyter_client for two reasons. Startup cost: importing
jupyter_client takes about 0.25 s, and its `BlockingKernelClient` needs 0.2 s to attach to each
kernel, five sockets and a heartbeat thread, while the pool needs one socket and a reply. Bounded
frames: a kernel runs untrusted code, so that the size of what it sends is limited here before it is
parsed. `Kernel.blocking_client` returns a client of jupyter_client to whoever wants one.
"""

from __future__ import annotations

import hmac
import itertools
import json
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

DELIMITER = b"<IDS|MSG>"
MAX_MESSAGE_BYTES = 8 << 20  # larger messages of a kernel are ignored


class Message(NamedTuple):
    """A message from a kernel.

    Attributes:
        type: the message type, such as "execute_reply".
        parent_id: id of the request that caused the message.
        content: the message's content, which is untrusted.
    """

    type: str
    parent_id: str
    content: dict[str, Any]


class JupyterMessageCodec:
    """Encodes and decodes the messages of one client of one kernel.

    Args:
        key: the kernel's key, with which messages are signed.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._session = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def _sign(self, parts: list[bytes]) -> bytes:
        mac = hmac.new(self._key, digestmod="sha256")
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def encode(self, message_type: str, content: dict[str, Any]) -> tuple[str, list[bytes]]:
        """Return the message id and the frames of a request."""
        message_id = f"{self._session}_{next(self._numbers)}"
        header = {
            "msg_id": message_id,
            "msg_type": message_type,
            "username": "eightfold",
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        return message_id, [DELIMITER, self._sign(parts), *parts]

    def decode(self, frames: list[bytes]) -> Message | None:
        """Return the message in `frames`, or None if it is malformed, too large or badly signed."""
        try:
            at = frames.index(DELIMITER)
            parts = frames[at + 2 : at + 6]
            if len(parts) != 4 or sum(map(len, parts)) > MAX_MESSAGE_BYTES:
                return None
            if not hmac.compare_digest(self._sign(parts), frames[at + 1]):
                return None
            header, parent, content = (json.loads(parts[i]) for i in (0, 1, 3))
            return Message(str(header["msg_type"]), str(parent.get("msg_id")), dict(content))
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def execute_request(code: str, *, silent: bool = False) -> dict[str, Any]:
    """Return the content of an execute request."""
    return {
        "code": code,
        "silent": silent,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
