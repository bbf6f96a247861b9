"""Long random storms of requests over pools that are far too small."""

import os
import random
from collections.abc import Callable

import pytest
from helpers.engine_cases.draft_sources import DeviceDrafts, RandomDrafts
from helpers.engine_cases.fake_engine import FakeEngine, expected_token

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.draft_source import DraftSource
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.speculator import Speculator

WINDOW = 6
# Of the storms with drafts; 100,000 for a thorough run.
STORM_OPERATIONS = int(os.environ.get("EIGHTFOLD_STORM_OPERATIONS", "3000"))


class Storm:
    """Random operations on an engine, and a mirror of the tokens that each sequence must have."""

    def __init__(self, seed: int, draft_source: DraftSource | None = None) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        rewind, step_tokens = pick([0, 4]), 16 if draft_source else 8
        # Steps go ahead of their results only while no sequence waits to join.
        self.most_live, self.roomy = 12, isinstance(draft_source, DeviceDrafts)
        if self.roomy:
            self.most_live, step_tokens = 3, 32
        elif seed % 10 == 0:
            self.most_live = 1000  # hundreds come to wait for pages
        self.engine = FakeEngine(
            full=pick([13, 16, 30]) + 150 * self.roomy,
            sliding=pick([0, 3, 21]) + 4 + 100 * self.roomy + (WINDOW + rewind + step_tokens) // 4,
            window=WINDOW,
            host=pick([0, 3, 30]),
            lookahead=max(pick([0, 1]), self.roomy),
            max_running=max(pick([1, 2, 4, 8]), 4 * self.roomy),
            max_step_tokens=step_tokens,
            max_context=96 if self.roomy else 48,
            prefix_cache=pick([True, True, False]),
            rewind_tokens=rewind,
            draft_source=draft_source,
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
            max_new_tokens=self.random.choice([None, 1, 5, 20 + 40 * self.roomy]),
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
                self.live.discard(seq)
            else:
                self.mirror[seq] += tokens
            self.paused.discard(seq)

    def cancel(self) -> None:
        if self.live:
            seq = self.random.choice(sorted(self.live))
            assert self.engine.scheduler.cancel(seq)
            self.live.discard(seq)
            self.paused.discard(seq)

    def rewind(self) -> None:
        if self.live:
            seq = self.random.choice(sorted(self.live))
            length = self.random.randint(max(1, len(self.mirror[seq]) - 8), len(self.mirror[seq]))
            assert self.engine.scheduler.rewind(seq, length)
            del self.mirror[seq][length:]
            self.paused.add(seq)

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
            (self.rewind, 2),
            (self.fail, 0.2),
        ]
        actions, weights = zip(*choices, strict=True)
        for action in self.random.choices(actions, weights, k=operations):
            if action == self.submit and len(self.live) > self.most_live:
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


def drain(storm: Storm, operations: int) -> None:
    """Run a storm to its end, and assert that nothing is left of it."""
    storm.run(operations)
    storm.drain()
    assert storm.finished > operations // 100
    assert not storm.engine.scheduler.sequences
    for pool in storm.engine.page_tables.pools:
        assert pool.available == pool.capacity


@pytest.mark.parametrize("seed", range(20))
def test_storm(seed: int) -> None:
    """5,000 operations for each of 20 seeds; every token is checked when it is reported."""
    drain(Storm(seed), 5_000)


def make_drafts(kind: str, seed: int) -> RandomDrafts | Speculator:
    """Return a source of drafts; random ones are more or less accurate by the seed."""
    if kind == "ngram":
        return Speculator(NgramDrafter(), None, 6, uniform=False)
    if kind == "device":
        return DeviceDrafts(seed, WINDOW, (0.3, 0.7, 0.95)[seed % 3], 3)
    return RandomDrafts(seed, WINDOW, (0.3, 0.7, 0.95)[seed % 3], 6, kind == "trees")


@pytest.mark.parametrize("kind", ["lines", "trees", "ngram", "device"])
@pytest.mark.parametrize("group", range(4))
def test_storm_with_drafts(kind: str, group: int) -> None:
    """Every token is the one that an undisturbed run without drafts samples."""
    accepted = 0
    for seed in range(5 * group, 5 * group + 5):
        source = make_drafts(kind, seed)
        storm = Storm(seed, source)
        drain(storm, STORM_OPERATIONS // 20)
        counters = storm.engine.scheduler.counters
        accepted += counters.accepted_tokens
        assert counters.accepted_tokens == sum(counters.accepted_by_depth)
        assert counters.drafted_tokens >= counters.accepted_tokens
        if isinstance(source, RandomDrafts):
            assert source.recorded <= counters.accepted_tokens
            assert not source.known, "a sequence that ended is remembered"
        else:
            assert not source.drafter._attempts, "a sequence that ended is remembered"
    assert accepted > (STORM_OPERATIONS // 40 if kind != "ngram" else 0)
