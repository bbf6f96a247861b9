"""Hypothesis searches for the shortest sequence of requests that breaks the scheduler."""

from helpers.engine_cases.draft_sources import RandomDrafts
from helpers.engine_cases.fake_engine import FakeEngine, expected_token
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from eightfold.engine.sampling_params import SamplingParams

WINDOW, CONTEXT = 6, 40
SEEDS = st.integers(0, 3)


class SchedulerMachine(RuleBasedStateMachine):
    """Sequences over tiny pools; a mirror holds the tokens that each sequence must have."""

    sequences = Bundle("sequences")

    @initialize(
        full=st.sampled_from([11, 14, 24]),
        sliding=st.sampled_from([9, 12, 24]),
        host=st.sampled_from([0, 3, 20]),
        lookahead=st.integers(0, 1),
        running=st.sampled_from([1, 3, 8]),
        prefix_cache=st.booleans(),
        rewind_tokens=st.sampled_from([0, 3]),
        drafts=st.sampled_from([None, "lines", "trees"]),
    )
    def make(
        self,
        full: int,
        sliding: int,
        host: int,
        lookahead: int,
        running: int,
        prefix_cache: bool,
        rewind_tokens: int,
        drafts: str | None,
    ) -> None:
        source = RandomDrafts(full, WINDOW, 0.7, 4, drafts == "trees") if drafts else None
        self.engine = FakeEngine(
            *(full, sliding, WINDOW, host, lookahead, running, 8, CONTEXT),
            *(prefix_cache, rewind_tokens, source),
        )
        self.mirror: dict[int, list[int]] = {}
        self.seeds: dict[int, int] = {}
        self.status: dict[int, str] = {}

    def add(self, seq: int, tokens: list[int], seed: int, status: str = "running") -> int:
        self.mirror[seq], self.seeds[seq], self.status[seq] = list(tokens), seed, status
        return seq

    @rule(
        target=sequences,
        tokens=st.integers(1, 20),
        seed=SEEDS,
        limit=st.sampled_from([None, 1, 6]),
        pauses=st.sampled_from([(), (2, 3, 4, 5), tuple(range(2, 23))]),
    )
    def submit(self, tokens: int, seed: int, limit: int | None, pauses: tuple[int, ...]) -> int:
        prompt = [7 + i % 3 for i in range(tokens)]
        params = SamplingParams(
            seed=seed, max_new_tokens=limit, pause_token_ids=pauses, stop_token_ids=(0, 1)
        )
        return self.add(self.engine.scheduler.submit(list(prompt), params), prompt, seed)

    @rule(target=sequences, parent=sequences, seeds=st.lists(SEEDS, min_size=1, max_size=2))
    def fork(self, parent: int, seeds: list[int]):
        if self.status[parent] == "finished" or len(self.engine.scheduler.sequences) > 12:
            return multiple()
        children = self.engine.scheduler.fork(parent, seeds)
        for child, seed in zip(children, seeds, strict=True):
            self.add(child, self.mirror[parent], seed, self.status[parent])
        return multiple(*children)

    @rule(seq=sequences, count=st.sampled_from([0, 1, 3, 9]))
    def resume(self, seq: int, count: int) -> None:
        fits = len(self.mirror[seq]) + count < CONTEXT
        if self.status[seq] == "paused" and fits:
            assert self.engine.scheduler.resume(seq, [8] * count)
            self.mirror[seq] += [8] * count
            self.status[seq] = "running"

    @rule(seq=sequences, count=st.sampled_from([0, 1, 2, 5, 30]))
    def rewind(self, seq: int, count: int) -> None:
        length = max(1, len(self.mirror[seq]) - count)
        assert self.engine.scheduler.rewind(seq, length) == (self.status[seq] != "finished")
        if self.status[seq] != "finished":
            del self.mirror[seq][length:]
            self.status[seq] = "paused"

    @rule(seq=consumes(sequences))
    def cancel(self, seq: int) -> None:
        assert self.engine.scheduler.cancel(seq) == (self.status[seq] != "finished")
        self.status[seq] = "finished"

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            commit_due = len(self.engine.in_flight) > self.engine.lookahead
            for event in self.engine.commit_step() if commit_due else self.engine.step():
                for token in event.tokens:
                    mirror = self.mirror[event.seq]
                    assert token == expected_token(self.seeds[event.seq], mirror, WINDOW)
                    mirror.append(token)
                self.status[event.seq] = event.status
            self.engine.check()

    @rule()
    def launch_step(self) -> None:
        """Plan and launch a step, so that the next requests come while it is in flight."""
        if len(self.engine.in_flight) <= self.engine.lookahead:
            self.engine.launch_step()

    @rule()
    def fail(self) -> None:
        self.engine.fail()

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check()

    def teardown(self) -> None:
        """Let every sequence finish; every page must then be available again."""
        if not hasattr(self, "engine"):
            return
        for _ in range(2_000):
            for seq in [seq for seq, status in self.status.items() if status == "paused"]:
                self.cancel(seq)
            if all(status == "finished" for status in self.status.values()):
                break
            self.step(1)
        assert all(status == "finished" for status in self.status.values()), "a sequence never ends"
        self.engine.run()
        assert not self.engine.scheduler.sequences
        for pool in self.engine.page_tables.pools:
            assert pool.available == pool.capacity


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=400,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
