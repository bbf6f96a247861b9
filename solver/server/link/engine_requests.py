"""The engine's side of the server: requests of the HTTP process, run on the engine's thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from .messages import (
    AskStats,
    Cancel,
    EngineFailed,
    FrameReader,
    Generate,
    Message,
    Ready,
    Refused,
    Solve,
    Started,
    Stats,
    Updates,
    frame,
    refusal_code,
)
from .vote_thread import VoteThread

if TYPE_CHECKING:
    from eightfold.engine import Event

    from ...attempts.engine_loop import EngineLoop
    from ...solver import Solver

RETRY_SECONDS = 0.01
"""Seconds until bytes are offered again to an HTTP process that is behind."""

PIECE = 1 << 16


class EngineRequests:
    """Runs an HTTP process's requests to one engine; a `Listener` of the engine's loop.

    The updates of one step leave in one frame. An HTTP process that is behind never stops the
    engine: what it does not take yet is kept.

    Args:
        solver: the solver, which votes need.
        loop: the thread of one of its engines.
        connection: this process's end of the socket.

    Attributes:
        ready: set once the HTTP process answers requests, or has ended.
        lost: True once the HTTP process has ended.
    """

    def __init__(self, solver: Solver, loop: EngineLoop, connection: socket.socket) -> None:
        self.ready = threading.Event()
        self.lost = False
        self._solver, self._loop = solver, loop
        self._connection = connection
        self._sequences: dict[int, dict[int, int]] = {}  # by request and index, those that run
        self._votes: dict[int, VoteThread] = {}
        self._outbox: list[Message] = []
        self._updates: list[tuple[int, int, tuple[int, ...], str | None]] = []
        self._unsent = bytearray()
        self._loop.post(lambda: self._loop.add_listener(self))
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def close(self) -> None:
        """End all requests, and listen to the engine no more."""
        if self._loop.alive:
            self._loop.post(self._end)

    def _read(self) -> None:
        """Hand what the HTTP process sends to the engine's thread, until it ends."""
        reader = FrameReader()
        while True:
            try:
                piece = self._connection.recv(PIECE)
            except OSError:
                piece = b""
            if not piece:
                self.lost = True
                self.ready.set()
                self._loop.post(self._end)
                return
            messages = reader.add(piece)
            if messages:
                self._loop.post(lambda messages=messages: self._take(messages))  # type: ignore[misc]

    # On the engine's thread

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Generate):
                self._generate(message)
            elif isinstance(message, Cancel):
                self._cancel(message.request, message.index)
            elif isinstance(message, AskStats):
                self._outbox.append(Stats(message.request, self._loop.engine.stats()))
            elif isinstance(message, Solve):
                self._votes[message.request] = VoteThread(self._solver, message, self._post)
            elif isinstance(message, Ready):
                self.ready.set()

    def _generate(self, message: Generate) -> None:
        engine, seqs = self._loop.engine, list[int]()
        try:
            for prompt, (seed, *others) in zip(message.prompts, message.seeds, strict=True):
                seqs.append(engine.submit(prompt, replace(message.params, seed=seed)))
                seqs += engine.fork(seqs[-1], len(others), others) if others else []
        except ValueError as error:
            for seq in seqs:
                engine.cancel(seq)
            code = refusal_code(str(error))
            self._outbox.append(Refused(message.request, str(error), param="prompt", code=code))
            return
        self._sequences[message.request] = dict(enumerate(seqs))
        for index, seq in enumerate(seqs):
            self._loop.subscribe(seq, self._handler(message.request, index))
        self._outbox.append(Started(message.request))

    def _handler(self, request: int, index: int) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            reason = None
            if event.status == "finished":
                reason = event.reason or "eos"
                running = self._sequences.get(request, {})
                running.pop(index, None)
                if not running:
                    self._sequences.pop(request, None)
            self._updates.append((request, index, event.tokens, reason))

        return on_event

    def _cancel(self, request: int, index: int | None) -> None:
        if index is not None:
            seq = self._sequences.get(request, {}).get(index)
            if seq is not None:
                self._loop.engine.cancel(seq)
            return
        for seq in self._sequences.pop(request, {}).values():
            self._loop.unsubscribe(seq)
            self._loop.engine.cancel(seq)
        vote = self._votes.pop(request, None)
        if vote is not None:
            vote.leave()

    def _end(self) -> None:
        for request in [*self._sequences, *self._votes]:
            self._cancel(request, None)
        self._loop.remove_listener(self)

    def _post(self, message: Message) -> None:
        """Send a message from any thread."""
        self._loop.post(lambda: self._outbox.append(message))

    # The interface `Listener`

    def tick(self, now: float) -> float:
        """Send what has gathered; called between two steps."""
        if self._updates:
            self._outbox.append(Updates(self._updates))
            self._updates = []
        if self._outbox:
            self._unsent += frame(self._outbox)
            self._outbox.clear()
        if not self._unsent:
            return now + 60.0
        try:
            sent = self._connection.send(self._unsent, socket.MSG_DONTWAIT)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:  # the HTTP process has ended, which the reading thread sees too
            self._unsent.clear()
        return now + (RETRY_SECONDS if self._unsent else 60.0)

    def fault(self, error: Exception, final: bool) -> None:
        """Tell that all sequences are lost if the engine has given them up."""
        if not final:
            return
        self._sequences.clear()
        ended = self._loop.error is not None
        said = f"The engine failed: {str(error).rstrip('.')}."
        self._outbox.append(EngineFailed(said, ended))
        self.tick(0.0)
        if ended:  # no tick will follow
            for vote in self._votes.values():
                vote.leave()
            with suppress(OSError):
                self._connection.sendall(self._unsent)
