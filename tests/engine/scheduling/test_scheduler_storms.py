"""Long random storms of requests over pools that are far too small."""

import random
from collections.abc import Callable

import pytest
from helpers.engine_cases.fake_engine import FakeEngine, expected_token

from eightfold.engine.sampling_params import SamplingParams

WINDOW = 6


class Storm:
    """Random operations on an engine, and a mirror of the tokens that each sequence must have."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.engine = FakeEngine(
            full=pick([13, 16, 30]),
            sliding=pick([9, 12, 30]),
            window=WINDOW,
            host=pick([0, 3, 30]),
            lookahead=pick([0, 1]),
            max_running=pick([1, 2, 4, 8]),
            max_step_tokens=8,
            max_context=48,
            prefix_cache=pick([True, True, False]),
        )
        self.mirror: dict[int, list[int]] = {}
        self.seeds: dict[int, int] = {}
        self.paused: set[int] = set()
        self.live: set[int] = set()
        self.finished = 0

    def submit(self) -> None:
        base = [5, 6, 7, 8] * 6 if self.random.random() < 0.5 else [9, 5, 4, 3] * 6
        tokens = [*base[: self.random.randint(1, 24)], self.random.randint(3, 22)]
        params = SamplingParams(
            seed=self.random.randint(0, 3),
            max_new_tokens=self.random.choice([None, 1, 5, 20]),
            pause_token_ids=self.random.choice([(), (2, 3, 4)]),
            stop_token_ids=self.random.choice([None, (), (6, 7)]),
        )
        seq = self.engine.scheduler.submit(list(tokens), params)
        self.mirror[seq], self.seeds[seq] = tokens, params.seed
        self.live.add(seq)

    def fork(self) -> None:
        if self.live:
            parent = self.random.choice(sorted(self.live))
            seeds = [self.random.randint(0, 9) for _ in range(self.random.randint(1, 3))]
            for seq, seed in zip(self.engine.scheduler.fork(parent, seeds), seeds, strict=True):
                self.mirror[seq], self.seeds[seq] = list(self.mirror[parent]), seed
                self.live.add(seq)
                if parent in self.paused:
                    self.paused.add(seq)

    def resume(self) -> None:
        if self.paused:
            seq = self.random.choice(sorted(self.paused))
            tokens = [self.random.randint(3, 22) for _ in range(self.random.randint(0, 6))]
            try:
                assert self.engine.scheduler.resume(seq, list(tokens))
            except ValueError:
                self.engine.scheduler.cancel(seq)
            else:
                self.mirror[seq] += tokens
            self.paused.discard(seq)

    def cancel(self) -> None:
        if self.live:
            seq = self.random.choice(sorted(self.live))
            assert self.engine.scheduler.cancel(seq)
            self.live.discard(seq)
            self.paused.discard(seq)

    def fail(self) -> None:
        self.engine.fail()

    def step(self) -> None:
        for event in self.engine.step():
            for token in event.tokens:
                mirror = self.mirror[event.seq]
                assert token == expected_token(self.seeds[event.seq], mirror, WINDOW)
                mirror.append(token)
            if event.status == "paused":
                self.paused.add(event.seq)
            elif event.status == "finished":
                self.live.discard(event.seq)
                self.paused.discard(event.seq)
                self.finished += 1

    def run(self, operations: int) -> None:
        choices: list[tuple[Callable[[], None], float]] = [
            (self.step, 60),
            (self.submit, 10),
            (self.fork, 4),
            (self.resume, 12),
            (self.cancel, 4),
            (self.fail, 0.2),
        ]
        actions, weights = zip(*choices, strict=True)
        for action in self.random.choices(actions, weights, k=operations):
            if action is self.submit and len(self.live) > 12:
                continue
            action()
            self.engine.check()

    def drain(self) -> None:
        """Let every sequence finish; paused ones are cancelled."""
        while self.live:
            for seq in sorted(self.paused):
                self.engine.scheduler.cancel(seq)
                self.paused.discard(seq)
            self.step()
            self.engine.check()
        while self.engine.scheduler.has_work:
            self.step()
        self.engine.check()


@pytest.mark.parametrize("seed", range(20))
def test_storm(seed: int) -> None:
    """5,000 operations for each of 20 seeds; every token is checked when it is reported."""
    storm = Storm(seed)
    storm.run(5_000)
    storm.drain()
    assert storm.finished > 100
    assert not storm.engine.scheduler.sequences
    for pool in storm.engine.page_tables.pools:
        assert pool.available == pool.capacity
