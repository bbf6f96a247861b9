"""The engines that answer requests, each of which goes to the one with the least to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from ..api_errors import ApiError
from .engine_client import EngineClient


class EngineClients:
    """The connections to all engines.

    Args:
        clients: one connection for each engine, at least one.
    """

    def __init__(self, clients: Sequence[EngineClient]) -> None:
        self._clients = tuple(clients)

    @property
    def first(self) -> EngineClient:
        """The connection over which the two processes talk about themselves."""
        return self._clients[0]

    @property
    def running(self) -> int:
        """Number of requests under way."""
        return sum(len(client.running) for client in self._clients)

    @property
    def ended(self) -> list[str]:
        """For each engine that has ended, the reason."""
        return [client.ended for client in self._clients if client.ended is not None]

    @property
    def alive(self) -> list[EngineClient]:
        """The engines that run."""
        return [client for client in self._clients if client.ended is None]

    async def attach(self) -> None:
        """Read and write on the running event loop from now on."""
        for client in self._clients:
            await client.attach()

    def least_busy(self) -> EngineClient:
        """Return the engine that has the fewest sequences; the first of several.

        Raises:
            ApiError: all engines have ended.
        """
        alive = self.alive
        if not alive:
            raise ApiError("The engine has ended; restart the server.", 503)
        return min(alive, key=lambda client: client.sequences)

    async def stats(self) -> dict[str, Any]:
        """Return the sums of the engines' counters, without those of engines that have ended.

        Raises:
            ApiError: an engine has ended meanwhile.
        """
        found = await asyncio.gather(*(client.stats() for client in self.alive))
        sums: dict[str, Any] = {}
        for name, value in ((name, value) for one in found for name, value in one.items()):
            if isinstance(value, list):
                before = sums.get(name, [])
                sums[name] = [a + b for a, b in zip_longest(before, value, fillvalue=0)]
            else:
                sums[name] = sums.get(name, 0) + value
        return sums
