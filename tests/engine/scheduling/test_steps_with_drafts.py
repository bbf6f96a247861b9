"""Steps that carry drafts: pauses and ends among them, pages, windows, forks, and counters."""

import pytest
from helpers.engine_cases.draft_sources import DeviceDrafts, RandomDrafts
from helpers.engine_cases.fake_engine import (
    EVERY_TOKEN,
    PAGE_SIZE,
    PROMPT,
    FakeEngine,
    expected_token,
    params,
    sampled_alone,
)

from eightfold.engine.scheduling.scheduled_step import StepPlan

WINDOW = 6


def drafting(accuracy: float = 1.0, most: int = 5, branches: bool = False, **changes: object):
    """Return an engine whose drafts are right with a given probability."""
    source = RandomDrafts(1, WINDOW, accuracy, most, branches)
    source.random.randint = lambda low, high: high  # type: ignore[method-assign]
    settings: dict = {"max_step_tokens": 24, "window": WINDOW, **changes}
    return FakeEngine(draft_source=source, **settings)


def drafting_on_the_device(**changes: object) -> FakeEngine:
    """Return an engine whose drafts, all right, are made behind the steps."""
    source = DeviceDrafts(1, WINDOW, 1.0, 3)
    source.random.random = lambda: 0.5  # type: ignore[method-assign]
    settings: dict = {"max_step_tokens": 24, "window": WINDOW, **changes}
    return FakeEngine(draft_source=source, **settings)


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("accuracy", [0.0, 0.6, 1.0])
def test_tokens_are_those_without_drafts(accuracy: float, branches: bool, lookahead: int) -> None:
    engine = drafting(accuracy, branches=branches, lookahead=lookahead)
    seqs = [
        engine.scheduler.submit(list(PROMPT), params(seed=seed, max_new_tokens=25))
        for seed in range(3)
    ]
    engine.run()
    for seed, seq in enumerate(seqs):
        alone = sampled_alone(list(PROMPT), params(seed=seed, max_new_tokens=25))
        assert engine.sampled[seq] == alone
    counters = engine.scheduler.counters
    assert counters.drafted_tokens > 0
    if accuracy == 1.0 and not branches:
        assert counters.steps < 15
    if accuracy == 0.0:
        assert counters.accepted_tokens < 10


def test_a_pause_among_right_drafts_drops_what_follows_and_recomputes_nothing() -> None:
    tokens = list(PROMPT)
    for _ in range(4):
        tokens.append(expected_token(3, tokens, WINDOW))
    pause = tokens[-1]
    at = tokens.index(pause, len(PROMPT)) - len(PROMPT) + 1
    engine = drafting()
    settings = params(pause_token_ids=(pause,), max_new_tokens=None)
    seq = engine.scheduler.submit(list(PROMPT), settings)
    events = engine.run()
    assert events[-1].status == "paused"
    assert events[-1].tokens[-1] == pause
    assert engine.sampled[seq] == tokens[len(PROMPT) : len(PROMPT) + at]
    assert engine.scheduler.counters.dropped_tokens > 0
    assert len(engine.scheduler.sequences[seq].tables[0]) <= -(-(len(PROMPT) + at) // PAGE_SIZE)
    kept = engine.scheduler.tokens(seq)
    engine.scheduler.resume(seq, [9, 9, 9])
    engine.sampled[seq] = []
    engine.run()
    assert engine.sampled[seq] == sampled_alone([*kept, 9, 9, 9], settings)
    assert engine.scheduler.counters.recomputed_tokens == 0


def test_a_token_that_finishes_a_sequence_is_reported_alone() -> None:
    """Who reads the tokens before it may still rewind the sequence."""
    tokens = list(PROMPT)
    for _ in range(3):
        tokens.append(expected_token(3, tokens, WINDOW))
    end = tokens[-1]
    engine = drafting()
    settings = params(stop_token_ids=(end,), max_new_tokens=None)
    seq = engine.scheduler.submit(list(PROMPT), settings)
    events = engine.run()
    assert events[-1].tokens == (end,)
    assert events[-1].reason == "eos"
    assert engine.scheduler.counters.recomputed_tokens == 1  # to draw it again
    assert engine.sampled[seq] == sampled_alone(list(PROMPT), settings)


@pytest.mark.parametrize("limit", range(1, 9))
def test_no_draft_lies_beyond_the_last_token(limit: int) -> None:
    engine = drafting()
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=limit))
    engine.run()
    assert len(engine.sampled[seq]) == limit
    counters = engine.scheduler.counters
    assert counters.drafted_tokens <= max(0, limit - 3) * limit
    assert counters.dropped_tokens == counters.recomputed_tokens == 0


def test_the_context_can_be_filled() -> None:
    engine = drafting(max_context=20)
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=None))
    events = engine.run()
    assert events[-1].reason == "context"
    assert len(PROMPT) + len(engine.sampled[seq]) == 20
    assert engine.scheduler.counters.recomputed_tokens == 0


@pytest.mark.parametrize("limit", [19, 23, 27])
def test_an_end_at_the_limit_behind_chained_steps_recomputes_nothing(limit: int) -> None:
    """Right drafts that the device makes do not reach the last token either."""
    engine = drafting_on_the_device(lookahead=1)
    chain, chained = engine.scheduler.plan_chained, []

    def counted() -> StepPlan | None:
        plan = chain()
        chained.append(plan is not None)
        return plan

    engine.scheduler.plan_chained = counted  # type: ignore[method-assign]
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=limit))
    engine.run()
    assert any(chained)
    assert engine.sampled[seq] == sampled_alone(list(PROMPT), params(max_new_tokens=limit))
    assert engine.scheduler.counters.recomputed_tokens == 0


def test_drafts_take_no_page_from_others() -> None:
    """The pools hold two sequences exactly: with drafts, nobody is preempted either."""
    engine = drafting(0.5, most=8, full=13, sliding=13, max_context=24, prefix_cache=False)
    for seed in range(2):
        engine.scheduler.submit(list(PROMPT), params(seed=seed, max_new_tokens=17))
    engine.run()
    assert engine.scheduler.counters.preempted == 0
    assert engine.scheduler.counters.drafted_tokens > 0


def test_rejected_drafts_keep_no_page() -> None:
    engine = drafting(0.0, most=8)
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=None))
    for _ in range(4):
        engine.step()
        engine.check()
        state = engine.scheduler.sequences[seq]
        assert len(state.tables[0]) == -(-len(state.tokens) // PAGE_SIZE)


def test_the_window_is_kept_for_what_a_rejection_brings_back() -> None:
    engine = drafting(0.3, most=8, full=64, sliding=64, max_context=200)
    settings = params(max_new_tokens=150)
    seq = engine.scheduler.submit(list(PROMPT), settings)
    engine.run()  # the fake engine asserts that no query reads a freed page
    assert engine.sampled[seq] == sampled_alone(list(PROMPT), settings, max_context=200)


def test_forks_and_a_cached_prefix_of_a_drafted_sequence() -> None:
    engine = drafting(0.7, branches=True)
    seq = engine.scheduler.submit(list(PROMPT), params(pause_token_ids=EVERY_TOKEN))
    for _ in range(6):
        engine.run()
        engine.scheduler.resume(seq, [8])
    engine.run()
    tokens = engine.scheduler.tokens(seq)
    (child,) = engine.scheduler.fork(seq, [7])
    engine.scheduler.resume(child, [3])
    engine.scheduler.cancel(seq)
    engine.run()
    (first,) = engine.sampled[child]
    assert first == expected_token(7, [*tokens, 3], WINDOW)
    other = engine.scheduler.submit([*tokens, 4], params(max_new_tokens=8))
    engine.run()
    assert engine.scheduler.counters.prefix_hit_tokens > 0
    assert engine.sampled[other] == sampled_alone([*tokens, 4], params(max_new_tokens=8))


def test_chunks_and_drafts_do_not_share_a_step() -> None:
    engine = drafting(max_step_tokens=12)
    engine.scheduler.submit(list(PROMPT), params(max_new_tokens=30))
    engine.step()
    engine.scheduler.submit([5 + i % 9 for i in range(20)], params(max_new_tokens=3))
    while engine.scheduler.has_work:
        plan = engine.launch_step()
        if plan is not None:
            chunks = [entry for entry in plan.scheduled if entry.is_chunk]
            assert not chunks or not any(entry.drafts for entry in plan.scheduled)
        if engine.in_flight:
            engine.commit_step()
        else:
            engine.scheduler.take_events()


def test_counters_by_depth() -> None:
    engine = drafting(1.0, most=3)
    engine.scheduler.submit(list(PROMPT), params(max_new_tokens=17))
    events = engine.run()
    counters = engine.scheduler.counters
    assert counters.accepted_by_depth == counters.drafted_by_depth
    assert sum(event.accepted for event in events) == counters.accepted_tokens
    assert max(event.drafted for event in events) == 3
