"""Jupyter's message format (protocol 5.3), as much of it as a client of the shell channel needs.

A message on the wire is: the signature, then header, parent header, metadata and content as JSON,
after the delimiter; the signature is HMAC-SHA256 of the four (Jupyter client documentation,
"Messaging in Jupyter: the wire protocol").
"""

from __future__ import annotations

import hmac
import itertools
import json
import uuid
from datetime import UTC, datetime
from typing import Any

DELIMITER = b"<IDS|MSG>"
MAX_FRAME = 8 << 20  # bytes; a kernel is not trusted to send less


class Wire:
    """Packs and unpacks messages of one client with one kernel."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._session = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def _sign(self, parts: list[bytes]) -> bytes:
        mac = hmac.new(self._key, digestmod="sha256")
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def pack(self, kind: str, content: dict[str, Any]) -> tuple[str, list[bytes]]:
        """A request of type `kind`: its message id and its frames."""
        message_id = f"{self._session}_{next(self._numbers)}"
        header = {
            "msg_id": message_id,
            "msg_type": kind,
            "username": "eightfold",
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        return message_id, [DELIMITER, self._sign(parts), *parts]

    def unpack(self, frames: list[bytes]) -> tuple[str, str, dict[str, Any]] | None:
        """A reply's type, the id of its request and its content; None where it is not one.

        Whatever a kernel sends is data: anything malformed or badly signed is ignored.
        """
        try:
            at = frames.index(DELIMITER)
            parts = frames[at + 2 : at + 6]
            if len(parts) != 4 or sum(map(len, parts)) > MAX_FRAME:
                return None
            if not hmac.compare_digest(self._sign(parts), frames[at + 1]):
                return None
            header, parent, content = (json.loads(parts[i]) for i in (0, 1, 3))
            return str(header["msg_type"]), str(parent.get("msg_id")), dict(content)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def execute_request(code: str, *, silent: bool = False) -> dict[str, Any]:
    """The content of an execute request."""
    return {
        "code": code,
        "silent": silent,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
