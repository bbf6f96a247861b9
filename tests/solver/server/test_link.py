"""Requests across the socket between the HTTP process and the engine's process (3 s)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.engine import Event, SamplingParams
from eightfold.solver.attempts.engine_loop import EngineLoop
from eightfold.solver.server.api_errors import ApiError
from eightfold.solver.server.link.engine_client import EngineClient, Generation
from eightfold.solver.server.link.engine_requests import EngineRequests
from eightfold.solver.server.link.messages import (
    AskStats,
    Cancel,
    FrameReader,
    Generate,
    Refused,
    Started,
    Updates,
    frame,
)

PATIENCE = 100.0


class CountingEngine:
    """Samples 0, 1, 2, ... for each sequence, a token a step.

    Attributes:
        cancelled: sequences that were cancelled.
        sampled: number of tokens sampled so far.
        fault: raised by each step, if there is one.
        fast: False to rest between steps.
    """

    def __init__(self) -> None:
        self.cancelled: list[int] = []
        self.sampled = 0
        self.fault: BaseException | None = None
        self.fast = False
        self._running: dict[int, list[int]] = {}  # tokens so far and at most, by sequence
        self._numbers = iter(range(10_000))
        self._lock = threading.Lock()

    def submit(self, prompt: list[int], params: SamplingParams) -> int:
        if len(prompt) > 9:
            raise ValueError("A prompt of 10 tokens needs room.")
        with self._lock:
            number = next(self._numbers)
            self._running[number] = [0, params.max_new_tokens or 10**9]
            return number

    def fork(self, seq: int, n: int, seeds: list[int]) -> list[int]:
        return [self.submit([1], SamplingParams(max_new_tokens=self._running[seq][1]))] * n

    def cancel(self, seq: int) -> bool:
        with self._lock:
            self.cancelled.append(seq)
            return self._running.pop(seq, None) is not None

    def has_work(self) -> bool:
        return bool(self._running)

    def stats(self) -> dict[str, int]:
        return {"steps": 7}

    def step(self) -> list[Event]:
        if self.fault is not None:
            raise self.fault
        time.sleep(0.0 if self.fast else 0.001)
        events = []
        with self._lock:
            for seq, counts in list(self._running.items()):
                counts[0] += 1
                self.sampled += 1
                last = counts[0] == counts[1]
                events.append(
                    Event(
                        seq,
                        (counts[0] - 1,),
                        status="finished" if last else "running",
                        reason="length" if last else None,
                    )
                )
                if last:
                    del self._running[seq]
        return events


@dataclass
class Link:
    """Both ends."""

    engine: CountingEngine
    loop: EngineLoop
    other: socket.socket

    def run(self, work: Callable[[EngineClient], Awaitable[Any]]) -> Any:
        """Run the HTTP process's side."""

        async def main() -> Any:
            client = EngineClient(self.other)
            client.connection_lost = lambda error: None  # type: ignore[method-assign]
            await client.attach()
            return await asyncio.wait_for(work(client), PATIENCE)

        return asyncio.run(main())


@pytest.fixture
def link() -> Iterator[Link]:
    engine = CountingEngine()
    loop = EngineLoop(engine)  # type: ignore[arg-type]
    own, other = socket.socketpair()
    EngineRequests(SimpleNamespace(), loop, own)  # type: ignore[arg-type]
    yield Link(engine, loop, other)
    other.close()
    loop.close()
    own.close()


def generation(client: EngineClient, count: int | None, *prompts: list[int]) -> Generation:
    """Return a request with a sequence for each prompt."""
    params = SamplingParams(max_new_tokens=count)
    return Generation(client, prompts or [[1]], [[0]] * max(1, len(prompts)), params)


async def tokens_of(one: Generation) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the tokens by sequence, and the largest number that came at once."""
    await one.start()
    found: dict[int, tuple[int, ...]] = {}
    most = 0
    async for updates in one.updates():
        for update in updates:
            found[update.sequence] = found.get(update.sequence, ()) + update.tokens
            most = max(most, len(update.tokens))
    one.close()
    return found, most


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_frames_may_come_in_any_pieces(sizes: list[int]) -> None:
    sent = [Started(1), Cancel(2, 3), Updates([(1, 0, (5,), None)]), AskStats(9)]
    data = frame(sent[:1]) + frame(sent[1:3]) + frame([]) + frame(sent[3:])
    reader, found, at = FrameReader(), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += reader.add(data[at : at + size])
        at += size
    assert found == sent


def test_each_sequence_gets_its_tokens(link: Link) -> None:
    found, _ = link.run(lambda client: tokens_of(generation(client, 5, [1], [2], [3])))
    assert found == dict.fromkeys(range(3), (0, 1, 2, 3, 4))
    assert not link.engine.cancelled


def test_tokens_are_joined_for_a_reader_that_is_behind(link: Link) -> None:
    async def slow(client: EngineClient) -> Any:
        one = generation(client, 50)
        await one.start()
        while link.engine.has_work():
            await asyncio.sleep(0.01)
        await client.stats()  # which comes behind the last token
        return [update async for updates in one.updates() for update in updates]

    updates = link.run(slow)
    assert len(updates) == 1
    assert [token for update in updates for token in update.tokens] == list(range(50))
    assert updates[-1].reason == "length"


def test_a_prompt_that_does_not_fit_is_refused_and_the_others_are_cancelled(link: Link) -> None:
    with pytest.raises(ApiError, match="needs room") as caught:
        link.run(lambda client: tokens_of(generation(client, 5, [1], [1] * 10)))
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert link.engine.cancelled == [0]


def test_a_sequence_or_all_of_a_request_can_be_cancelled(link: Link) -> None:
    async def leave(client: EngineClient) -> None:
        one = generation(client, None, [1], [2])
        await one.start()
        one.stop(1)
        await client.stats()
        assert link.engine.cancelled == [1]
        one.close()
        assert (await client.stats()) == {"steps": 7}
        assert not client.running

    link.run(leave)
    assert sorted(set(link.engine.cancelled)) == [0, 1]


def test_requests_end_if_the_http_process_does(link: Link) -> None:
    async def start(client: EngineClient) -> None:
        await generation(client, None).start()

    link.run(start)
    link.other.close()
    deadline = time.monotonic() + PATIENCE
    while not link.engine.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link.engine.cancelled == [0]


def test_failed_steps_fail_the_requests_and_the_engine_goes_on(link: Link) -> None:
    async def fail(client: EngineClient) -> None:
        one = generation(client, None)
        await one.start()
        link.engine.fault = RuntimeError("no memory")
        with pytest.raises(ApiError, match=r"The engine failed: no memory\."):
            async for _ in one.updates():
                pass
        link.engine.fault = None
        assert client.ended is None
        assert (await tokens_of(generation(client, 3)))[0] == {0: (0, 1, 2)}

    link.run(fail)


def test_a_failure_that_comes_while_the_reader_is_busy_is_raised_by_the_next_read() -> None:
    client: Any = SimpleNamespace(number=lambda: 0, running={}, send=lambda message: None)

    async def fail() -> None:
        one = generation(client, None)
        reading = one.updates()
        one.update(0, (5,), None)
        one.receive(Started(0))
        assert [update.tokens for update in await anext(reading)] == [(5,)]
        one.receive(Refused(0, "The engine failed.", 500))
        with pytest.raises(ApiError, match="The engine failed"):
            await asyncio.wait_for(anext(reading), PATIENCE)

    asyncio.run(fail())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nothing_is_taken_once_the_engines_thread_has_ended(link: Link) -> None:
    async def end(client: EngineClient) -> None:
        one = generation(client, None)
        await one.start()
        link.engine.fault = SystemExit()
        with pytest.raises(ApiError, match="the engine's thread ended"):
            async for _ in one.updates():
                pass
        assert client.ended is not None
        with pytest.raises(ApiError, match="restart the server") as caught:
            generation(client, 1)
        assert caught.value.status == 503

    link.run(end)


def test_an_http_process_that_reads_nothing_does_not_stop_the_engine(link: Link) -> None:
    link.engine.fast = True
    params = SamplingParams(max_new_tokens=30_000)
    link.other.sendall(frame([Generate(1, [[1]], [[0]], params)]))
    deadline = time.monotonic() + PATIENCE
    while link.engine.sampled < 30_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link.engine.sampled == 30_000
    reader, found = FrameReader(), list[int]()
    link.other.settimeout(PATIENCE)
    while len(found) < 30_000:
        for message in reader.add(link.other.recv(1 << 16)):
            if isinstance(message, Updates):
                found += [token for update in message.updates for token in update[2]]
    assert found == list(range(30_000))
