"""Messages between the HTTP process and the engine's process, and their frames on a socket.

    HTTP process                         engine's process
                  <-  Setup
    Ready         ->
    Generate      ->
                  <-  Started, or Refused
                  <-  Updates ...            one message for each step
    Cancel        ->                         for a client that left, or a stop text
    Solve         ->
                  <-  Line ..., Solved, or Refused
    AskStats      ->
                  <-  Stats
                  <-  EngineFailed           the sequences of all requests are lost

A frame is the number of its bytes, four of them, and a pickled list of messages. The socket is one
end of a pair that only the two processes hold.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import SamplingParams

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Setup:
    """What the HTTP process serves.

    Attributes:
        name: name of the model in requests.
        vote_name: name of the whole solver in requests.
        key: what clients must send as a bearer token; None asks for none.
        parallel: number of problems that are solved at the same time.
        family: name of the model's chat format.
        efforts: True if the chat template knows reasoning efforts.
        effort: reasoning effort of requests that name none; None leaves it to the chat template.
        tokenizer: the tokenizer, with its chat template.
        defaults: sampling parameters of what a request leaves out.
        ends: tokens at which an answer ends.
        log_level: level of the HTTP server's log.
    """

    name: str
    vote_name: str
    key: str | None
    parallel: int
    family: str
    efforts: bool
    effort: str | None
    tokenizer: PreTrainedTokenizerBase
    defaults: SamplingParams
    ends: tuple[int, ...]
    log_level: str


@dataclass(frozen=True)
class Ready:
    """The HTTP process answers requests."""


@dataclass(frozen=True)
class Generate:
    """Begin sequences; their indices count those of all prompts.

    Attributes:
        request: number of the request.
        prompts: token ids of each prompt.
        seeds: for each prompt, the seed of each of its sequences.
        params: sampling parameters, the seed apart.
    """

    request: int
    prompts: list[list[int]]
    seeds: list[list[int]]
    params: SamplingParams


@dataclass(frozen=True)
class Cancel:
    """End a request's sequence, or all of it, votes included, if `index` is None."""

    request: int
    index: int | None = None


@dataclass(frozen=True)
class Solve:
    """Solve a problem; `seed` None takes the solver's."""

    request: int
    problem: str
    seed: int | None


@dataclass(frozen=True)
class AskStats:
    """Send the engine's counters."""

    request: int


@dataclass(frozen=True)
class Started:
    """The sequences of a request wait in the engine."""

    request: int


@dataclass(frozen=True)
class Refused:
    """A request that cannot be served; the fields are those of `ApiError`."""

    request: int
    message: str
    status: int = 400
    param: str | None = None
    code: str | None = None


def refusal_code(said: str) -> str | None:
    """Return the protocol's name of what the engine refuses, if it has one."""
    return "context_length_exceeded" if "needs room" in said else None


class Update(NamedTuple):
    """What a step, or several, did to one sequence of a request.

    Attributes:
        sequence: number of the sequence in its request, from 0.
        tokens: new tokens, the end token included.
        reason: why the sequence finished (see `Event.reason`); None while it runs.
    """

    sequence: int
    tokens: tuple[int, ...]
    reason: str | None


@dataclass(frozen=True)
class Updates:
    """What one step did to all sequences.

    Attributes:
        updates: the number of the request and the fields of `Update`, as plain tuples, because the
            engine waits while they are pickled.
    """

    updates: list[tuple[int, int, tuple[int, ...], str | None]]


@dataclass(frozen=True)
class Line:
    """A line of a problem's progress."""

    request: int
    text: str


@dataclass(frozen=True)
class Solved:
    """The answer to a problem.

    Attributes:
        request: number of the request.
        content: the final text of a winning attempt, with the voted integer in a box.
        reasoning: what that attempt wrote and ran before.
        usage: tokens, votes and how it ended.
    """

    request: int
    content: str
    reasoning: str
    usage: dict[str, Any]


@dataclass(frozen=True)
class Stats:
    """The engine's counters."""

    request: int
    values: dict[str, Any]


@dataclass(frozen=True)
class EngineFailed:
    """The sequences of all requests are lost; no further ones are taken if `ended` is True."""

    message: str
    ended: bool


Message = (
    Setup | Ready | Generate | Cancel | Solve | AskStats | Started | Refused | Updates | Line
    | Solved | Stats | EngineFailed
)  # fmt: skip


def frame(messages: Iterable[Message]) -> bytes:
    """Return messages as the bytes of one frame."""
    body = pickle.dumps(list(messages), pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Puts frames together from the pieces that a socket gives."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, piece: bytes) -> list[Message]:
        """Add bytes and return the messages of all frames that are complete now."""
        found: list[Message] = []
        self._bytes += piece
        at, size = 0, _LENGTH.size
        while len(self._bytes) >= at + size:
            end = at + size + _LENGTH.unpack_from(self._bytes, at)[0]
            if len(self._bytes) < end:
                break
            found += pickle.loads(memoryview(self._bytes)[at + size : end])
            at = end
        del self._bytes[:at]
        return found
