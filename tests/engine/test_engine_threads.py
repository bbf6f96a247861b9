"""One thread steps the engine while four others submit, resume, fork and cancel."""

import queue
import random
import threading
from collections import defaultdict
from dataclasses import replace

import pytest
from helpers.engine_cases import tiny_models
from helpers.engine_cases.token_replay import Record, verify

from eightfold.engine import Engine, EngineConfig, Event, SamplingParams

TIMEOUT = 120.0  # seconds; long, because the machine may be busy


class EventQueues:
    """A queue of events for each sequence.

    An event may arrive before the thread that submitted the sequence knows its number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: defaultdict[int, queue.Queue[Event]] = defaultdict(queue.Queue)

    def of(self, seq: int) -> queue.Queue[Event]:
        with self._lock:
            return self._queues[seq]


class Client(threading.Thread):
    """Drives a few sequences until each of them finishes."""

    def __init__(self, engine: Engine, events: EventQueues, seed: int) -> None:
        super().__init__(daemon=True)
        self.engine, self.events, self.random = engine, events, random.Random(seed)
        self.records: list[Record] = []
        self.reasons: list[str | None] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(5):
                tokens = [self.random.randrange(3, tiny_models.VOCABULARY) for _ in range(30)]
                params = SamplingParams(
                    seed=self.random.randrange(2**64), max_new_tokens=25, stop_token_ids=(),
                    pause_token_ids=tuple(range(3, tiny_models.VOCABULARY, 7)),
                )  # fmt: skip
                self.follow(self.engine.submit(tokens, params), Record(tokens, params))
        except BaseException as error:
            self.error = error

    def follow(self, seq: int, record: Record) -> None:
        """Take the events of a sequence until it finishes, then those of its forks."""
        self.records.append(record)
        forks = []
        while True:
            event = self.events.of(seq).get(timeout=TIMEOUT)
            record.add(event.tokens, event.entropies)
            if event.status == "finished":
                self.reasons.append(event.reason)
                break
            if event.status == "paused":
                chance = self.random.random()
                if chance < 0.1:
                    assert self.engine.cancel(seq)
                    continue
                if chance < 0.3:
                    params = replace(record.params, seed=self.random.randrange(99))
                    child = self.engine.fork(seq, 1, [params.seed])[0]
                    forks.append((child, Record(list(record.tokens), params)))
                self.resume(seq, record)
        for child, copy in forks:
            self.resume(child, copy)
            self.follow(child, copy)

    def resume(self, seq: int, record: Record) -> None:
        answer = [self.random.randrange(3, tiny_models.VOCABULARY) for _ in range(4)]
        record.tokens += answer
        assert self.engine.resume(seq, answer)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_requests_from_other_threads(lookahead: int) -> None:
    config = EngineConfig(
        lookahead=lookahead, page_size=4, max_step_tokens=16, max_running=4, max_context=160,
        full_pages=70, sliding_pages=40,
    )  # fmt: skip
    engine, events = Engine(tiny_models.build("gemma4"), config), EventQueues()
    clients = [Client(engine, events, seed) for seed in range(4)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients) or engine.has_work():
        engine.wait(0.05)
        for event in engine.step():
            events.of(event.seq).put(event)
        engine.check()
    for client in clients:
        assert client.error is None, client.error
    reference = tiny_models.build("gemma4")
    records = [record for client in clients for record in client.records]
    for record in records:
        verify(reference, record)
    assert len(records) > 20, "nothing was forked"
    assert {reason for client in clients for reason in client.reasons} >= {"length", "cancelled"}
    stats = engine.stats()
    assert stats["pages_available"] == stats["pages"]
    assert stats["pauses"] > 20
