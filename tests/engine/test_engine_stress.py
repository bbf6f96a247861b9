"""Random requests to engines with tiny models and pools that are far too small.

Every sampled token is verified. ``scheduling/test_scheduler_storms.py`` does the same to the
scheduler alone, for longer.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from helpers.engine_cases import tiny_models
from helpers.engine_cases.token_replay import Record, verify

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter

CONTEXT, STEP = 64, 8
PAUSES = [tuple(range(first, tiny_models.VOCABULARY, 3)) for first in (3, 5)]


class DeviceError(Exception):
    """A failure of the device."""


class RepeatingDrafter(NgramDrafter):
    """Adds guesses: tokens of a small model repeat too seldom to be found by n-grams alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def _draft(self, seq: Sequence, count: int) -> Draft:
        found = super()._draft(seq, count)
        if found.tree:
            return found
        guesses = self._random.sample(range(tiny_models.VOCABULARY), min(count, 3))
        return Draft(DraftTree(tuple(guesses), (0,) * len(guesses)), (0.1,) * len(guesses))


class Stress:
    """Random requests to an engine whose device fails at times, and a record of each sequence."""

    def __init__(self, name: str, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        page = pick([1, 4, 8])
        rewind = pick([0, 6])
        sliding = -(-(tiny_models.WINDOW + rewind + STEP) // page) + 3
        config = EngineConfig(
            page_size=page,
            max_running=pick([2, 4]),
            max_step_tokens=STEP,
            max_context=CONTEXT,
            full_pages=CONTEXT // page + 1 + pick([0, 3, CONTEXT // page]),
            sliding_pages=sliding + pick([0, 2, 4 * sliding]),
            offload_bytes=pick([0, 4_000, 10_000_000]),
            prefix_cache=pick([True, False]),
            rewind_tokens=rewind,
            lookahead=seed % 2,
            speculate=pick(["off", "ngram"]),
            always_draft=True,
            max_drafts=3,
        )
        drafter = None if config.speculate == "off" else RepeatingDrafter(seed)
        self.engine = Engine(tiny_models.build(name), config, drafter)
        self.records: dict[int, Record] = {}
        self.rewound: list[Record] = []  # records as they were before a rewind
        self.live: set[int] = set()
        self.paused: set[int] = set()
        self._launch, self._fails = self.engine._runner.launch, ""
        self.engine._runner.launch = self.launch  # type: ignore[method-assign]

    def launch(self, plan: Any) -> Any:
        """Launch a step; fail before or after its forward pass if :meth:`fail` asked for it."""
        fails, self._fails = self._fails, ""
        step = None if fails == "before" else self._launch(plan)
        if fails:
            raise DeviceError
        return step

    def add(self, seq: int, tokens: list[int], params: SamplingParams) -> None:
        self.records[seq] = Record(list(tokens), params)
        self.live.add(seq)

    def submit(self) -> None:
        pick = self.random.choice
        start = [(7 * i + 3) % tiny_models.VOCABULARY for i in range(self.random.randrange(40))]
        params = SamplingParams(
            temperature=pick([0, 0.7, 1.0]), top_k=pick([0, 5]), top_p=pick([1.0, 0.9]),
            min_p=pick([0, 0.05]), seed=self.random.randrange(2**64),
            max_new_tokens=pick([None, 1, 12]), entropy=pick([True, False]),
            pause_token_ids=pick([(), *PAUSES]), stop_token_ids=pick([None, (4, 10), ()]),
        )  # fmt: skip
        tokens = [*start, self.random.randrange(3, tiny_models.VOCABULARY)]
        self.add(self.engine.submit(tokens, params), tokens, params)

    def fork(self) -> None:
        if self.live and len(self.live) < 16:
            seq = self.random.choice(sorted(self.live))
            seeds = [self.random.randrange(9) for _ in range(self.random.randint(1, 2))]
            for child, seed in zip(self.engine.fork(seq, len(seeds), seeds), seeds, strict=True):
                self.add(
                    child, self.records[seq].tokens, replace(self.records[seq].params, seed=seed)
                )
                if seq in self.paused:
                    self.paused.add(child)

    def resume(self) -> None:
        if not self.paused:
            return
        seq = self.random.choice(sorted(self.paused))
        room = CONTEXT - 1 - len(self.records[seq].tokens)
        count = min(room, self.random.choice([0, 0, 1, 5, 30]))
        answer = [self.random.randrange(3, tiny_models.VOCABULARY) for _ in range(count)]
        with pytest.raises(ValueError, match="needs room"):
            self.engine.resume(seq, [3] * (room + 1))
        assert self.engine.resume(seq, answer)
        self.records[seq].tokens += answer
        self.paused.remove(seq)

    def rewind(self) -> None:
        if not self.live:
            return
        seq = self.random.choice(sorted(self.live))
        record = self.records[seq]
        length = max(1, len(record.tokens) - self.random.choice([0, 1, 2, 5, 20]))
        assert self.engine.rewind(seq, length)
        self.rewound.append(record)
        self.records[seq] = record.rewound(length)
        self.paused.add(seq)

    def cancel(self) -> None:
        if self.live:
            seq = self.random.choice(sorted(self.live))
            assert self.engine.cancel(seq)
            self.live.discard(seq)
            self.paused.discard(seq)

    def fail(self) -> None:
        self._fails = self.random.choice(["before", "after"])

    def step(self) -> None:
        try:
            events = self.engine.step()
        except DeviceError:
            return
        for event in events:
            self.records[event.seq].add(event.tokens, event.entropies)
            if event.status == "paused":
                self.paused.add(event.seq)
                if self.random.random() < 0.3:  # while the next step may be in flight
                    self.resume()
            elif event.status == "finished":
                self.live.discard(event.seq)

    def run(self, operations: int) -> None:
        choices: list[tuple[Callable[[], None], float]] = [
            (self.step, 60), (self.submit, 9), (self.fork, 5), (self.resume, 8), (self.cancel, 2),
            (self.fail, 1), (self.rewind, 4),
        ]  # fmt: skip
        actions, weights = zip(*choices, strict=True)
        for action in self.random.choices(actions, weights, k=operations):
            if action == self.submit and len(self.live) > 10:
                continue
            action()
            self.engine.check()
        while self.live:
            for seq in sorted(self.paused):
                assert self.engine.cancel(seq)
                self.live.discard(seq)
            self.paused.clear()
            self.step()
            self.engine.check()
        while self.engine.has_work():  # cancelled while in flight
            self.step()
            self.engine.check()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["gemma4", "gemma4_kv", "gemma4_e2b", "gpt_oss", "llama"])
def test_every_token_follows_from_its_context(name: str, seed: int) -> None:
    stress = Stress(name, seed)
    stress.run(180)
    reference = tiny_models.build(name)
    for record in (*stress.records.values(), *stress.rewound):
        verify(reference, record)
    stats = stress.engine.stats()
    assert stats["pages_available"] == stats["pages"]
    for what in ("pauses", "forked_tokens", "rewinds"):
        assert stats[what] > 0, what
    assert stats["sampled_tokens"] > 50
    assert stats["recomputed_tokens"] + stats["restored"] > 0
