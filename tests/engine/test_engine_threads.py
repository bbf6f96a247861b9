"""One thread steps while four others submit, resume, fork and cancel."""

import queue
import random
import threading
from collections import defaultdict
from dataclasses import replace

import pytest
from helpers import tiny_models
from helpers.token_replay import Record, verify

from eightfold.engine import Engine, EngineConfig, Event, SamplingParams

PATIENCE = 120.0  # seconds; a machine may be busy


class Mail:
    """Events by sequence; one may come before the thread that submitted knows its number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: defaultdict[int, queue.Queue[Event]] = defaultdict(queue.Queue)

    def box(self, seq: int) -> queue.Queue[Event]:
        with self._lock:
            return self._boxes[seq]


class Client(threading.Thread):
    """Drives a few sequences, each to an end of its own."""

    def __init__(self, engine: Engine, mail: Mail, seed: int) -> None:
        super().__init__(daemon=True)
        self.engine, self.mail, self.random = engine, mail, random.Random(seed)
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
        """Take a sequence's events until it ends; its forks after it."""
        self.records.append(record)
        forks = []
        while True:
            event = self.mail.box(seq).get(timeout=PATIENCE)
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
                    twin = self.engine.fork(seq, 1, [params.seed])[0]
                    forks.append((twin, Record(list(record.tokens), params)))
                self.resume(seq, record)
        for twin, copy in forks:
            self.resume(twin, copy)
            self.follow(twin, copy)

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
    engine, mail = Engine(tiny_models.build("gemma4"), config), Mail()
    clients = [Client(engine, mail, seed) for seed in range(4)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients) or engine.has_work():
        engine.wait(0.05)
        for event in engine.step():
            mail.box(event.seq).put(event)
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
