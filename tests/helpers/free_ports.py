"""Ports for servers that are started later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

CHOICE = range(20_000, 32_000)
"""Ports below those that the system gives to whatever asks for any, also a moment later."""


def free_port() -> int:
    """Return a port on which nothing listens."""
    for port in random.sample(CHOICE, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("100 ports were taken.")
