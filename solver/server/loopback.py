"""Addresses that only this machine can reach."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def asks_for_loopback(host_header: str) -> bool:
    """Return whether the header Host names this machine, as that of its own clients does.

    A web page elsewhere can have its own name resolved to this machine, but the browser then sends
    that name.
    """
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name.rstrip("."))
