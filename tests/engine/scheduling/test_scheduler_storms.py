"""Every phase against every end, and long random storms over pools that are far too small."""

import random
from collections.abc import Callable

import pytest
from helpers.fake_runner import FakeEngine, expected, undisturbed

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.sequence import SequenceStatus

PROMPT = list(range(3, 14))
ALL = tuple(range(23))
WINDOW = 6


def start(
    phase: str, lookahead: int, flying: bool, host: int = 0, **changes: object
) -> tuple[FakeEngine, int]:
    """An engine with one sequence in ``phase``; where ``flying``, a step with it is in flight.

    Without lookahead that is what another thread sees that calls while a step runs.
    """
    pausing = phase in ("paused", "resuming")
    settings = {"stop_token_ids": (), "seed": 5, **changes}
    if pausing:
        settings["pause_token_ids"] = ALL
    budget = 4 if phase == "chunk" else 16
    engine = FakeEngine(lookahead=lookahead, host=host, max_step_tokens=budget, prefix_cache=False)
    seq = engine.scheduler.submit(list(PROMPT), SamplingParams(**settings))
    state = engine.scheduler.sequences[seq]
    if phase == "chunk":
        engine.depart()
        engine.land()
        assert 0 < state.computed < len(PROMPT)
    elif phase == "decode":
        while len(engine.history.get(seq, [])) < 3:
            engine.step()
    elif pausing:
        while state.status is not SequenceStatus.PAUSED:
            engine.step()
    if phase == "resuming":
        while engine.flights:
            engine.land()
        engine.scheduler.resume(seq, [3, 3, 3])
    if flying and phase != "paused" and not engine.flights:
        engine.depart()
    while engine.flights and not flying:
        engine.land()
    engine.check()
    # A paused sequence is in flight only with the surplus step that lookahead had launched.
    assert bool(state.steps_in_flight) == (flying and (phase != "paused" or lookahead == 1))
    return engine, seq


def finish(engine: FakeEngine, seq: int) -> str | None:
    reason = None
    for event in engine.run():
        if event.seq == seq and event.status == "finished":
            reason = event.reason
    return reason


PHASES = ["prefill", "chunk", "decode", "paused", "resuming"]


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_cancel(phase: str, flying: bool, lookahead: int) -> None:
    engine, seq = start(phase, lookahead, flying, max_new_tokens=20)
    held = [list(table) for table in engine.scheduler.sequences[seq].tables]
    neighbour = engine.scheduler.submit([9, 9], SamplingParams(stop_token_ids=(), max_new_tokens=9))
    drawn = len(engine.history.get(seq, []))
    assert engine.scheduler.cancel(seq)
    engine.check()
    if engine.scheduler.sequences.get(seq):
        assert engine.flights, "only what is in flight is freed later"
        assert engine.scheduler.sequences[seq].tables == held
    else:
        assert not flying or not engine.flights
    assert finish(engine, seq) == "cancelled"
    assert len(engine.history.get(seq, [])) == drawn
    alone = undisturbed([9, 9], SamplingParams(stop_token_ids=(), max_new_tokens=9))
    assert engine.history[neighbour] == alone
    assert engine.page_tables.pools[0].available == engine.page_tables.pools[0].capacity


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("host", [0, 64])
@pytest.mark.parametrize("phase", PHASES)
def test_preempt(phase: str, host: int, lookahead: int) -> None:
    engine, seq = start(phase, lookahead, flying=True, host=host, max_new_tokens=7)
    state = engine.scheduler.sequences[seq]
    assert state.holds_pages
    while engine.flights:
        if state.steps_in_flight:
            with pytest.raises(AssertionError, match="in flight"):
                engine.scheduler.preemption.preempt(state)
        engine.land()
    known = list(state.tokens)
    engine.scheduler.preemption.preempt(state)
    engine.check()
    assert state.tokens == known
    assert not state.holds_pages
    assert bool(state.host_tables) == (host > 0)
    # With every token a pause, the sequence is resumed until it has drawn its seven.
    given = {len(PROMPT) + 1: [3, 3, 3]} if phase == "resuming" else {}
    while engine.scheduler.sequences:
        if state.status is SequenceStatus.PAUSED:
            given[len(state.tokens)] = [4]
            engine.scheduler.resume(seq, [4])
        engine.run()
    mirror = list(PROMPT)
    for token in engine.history[seq]:
        assert token == expected(5, mirror, WINDOW)
        mirror.append(token)
        mirror += given.get(len(mirror), [])
    assert len(engine.history[seq]) == 7
    assert (engine.scheduler.counters.recomputed_tokens == 0) == bool(host)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("end", ["eos", "length"])
@pytest.mark.parametrize("phase", PHASES)
def test_end(phase: str, end: str, lookahead: int) -> None:
    limit = {"prefill": 1, "chunk": 1, "decode": 5, "paused": 2, "resuming": 2}[phase]
    given = [3, 3, 3] if phase in ("paused", "resuming") else []
    mirror, drawn = list(PROMPT), []
    for _ in range(limit):
        drawn.append(expected(5, mirror, WINDOW))
        mirror += [drawn[-1], *given] if len(drawn) == 1 else [drawn[-1]]
    assert drawn[-1] not in drawn[:-1], "the last token is to be the end token"
    stops, limit = ((drawn[-1],), 30) if end == "eos" else ((), limit)
    pauses = tuple(token for token in ALL if given and token not in stops)
    params = SamplingParams(
        seed=5, max_new_tokens=limit, stop_token_ids=stops, pause_token_ids=pauses
    )
    engine = FakeEngine(lookahead=lookahead, max_step_tokens=4 if phase == "chunk" else 16)
    seq = engine.scheduler.submit(list(PROMPT), params)
    if given:
        engine.run()
        assert engine.scheduler.sequences[seq].status is SequenceStatus.PAUSED
        engine.scheduler.resume(seq, given)
        if phase == "resuming":
            plan = engine.scheduler.plan()
            engine.flights.append((plan, engine.launch(plan)))
            engine.check()
    assert finish(engine, seq) == end
    assert engine.history[seq] == drawn
    engine.check()
    # A pause and an end token are noticed when a step after them is on its way; a length is known.
    two_steps = lookahead or phase == "resuming"  # in flight when the last token is read
    surplus = lookahead * bool(given) + (end == "eos" and two_steps)
    assert engine.scheduler.counters.dropped_tokens == surplus
    assert engine.page_tables.pools[0].available == engine.page_tables.pools[0].capacity


class Storm:
    """Random operations on an engine, and a mirror of what each sequence must hold."""

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
                assert token == expected(self.seeds[event.seq], mirror, WINDOW)
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
        """Let everything end: what is paused is cancelled."""
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
    """20 seeds of 5,000 operations; every token is checked as it comes."""
    storm = Storm(seed)
    storm.run(5_000)
    storm.drain()
    assert storm.finished > 100
    assert not storm.engine.scheduler.sequences
    for pool in storm.engine.page_tables.pools:
        assert pool.available == pool.capacity
