"""Forks share full pages, copy the last partial page, and sample as if they were alone."""

import pytest
from helpers.engine_cases.fake_engine import EVERY_TOKEN, PROMPT, FakeEngine, params, sampled_alone

from eightfold.engine.scheduling.sequence import SequenceStatus


@pytest.mark.parametrize("length", [1, 2, 4, 5, 8, 11])
def test_forks_share_pages_and_sample_as_if_alone(lookahead: int, length: int) -> None:
    prompt = list(range(3, 3 + length))
    engine = FakeEngine(lookahead=lookahead)
    parent = engine.scheduler.submit(list(prompt), params(seed=0))
    children = engine.scheduler.fork(parent, [1, 2, 3])
    engine.run()
    for i, seq in enumerate([parent, *children]):
        assert engine.sampled[seq] == sampled_alone(prompt, params(seed=i)), i
    counters = engine.scheduler.counters
    # The prompt once, a last token per fork, and 11 or 12 of the 12 sampled tokens each.
    assert counters.computed_tokens <= length + 3 + 4 * 12
    assert counters.forked_tokens == (3 * (length - 1))


def test_each_fork_takes_one_page_of_each_pool(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, prefix_cache=False)
    parent = engine.scheduler.submit(
        list(range(3, 18)), params(pause_token_ids=EVERY_TOKEN, max_new_tokens=None)
    )
    engine.run()
    before = [pool.available for pool in engine.page_tables.pools]
    engine.scheduler.fork(parent, [1, 2, 3])
    engine.check()
    # Of 16 tokens, each fork computes the last one itself, and its page is therefore copied.
    assert [pool.available for pool in engine.page_tables.pools] == [n - 3 for n in before]


def test_fork_of_a_running_and_of_a_paused_sequence(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    parent = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=20))
    for _ in range(6):
        engine.step()
    known = engine.scheduler.tokens(parent)
    child = engine.scheduler.fork(parent, [9])[0]
    engine.run()
    spent = len(known) - len(PROMPT)
    assert engine.sampled[child] == sampled_alone(known, params(seed=9, max_new_tokens=20 - spent))
    pausing = params(pause_token_ids=EVERY_TOKEN)
    parent = engine.scheduler.submit(list(PROMPT), pausing)
    engine.run()
    child = engine.scheduler.fork(parent, [9])[0]
    engine.check()
    assert engine.scheduler.sequences[child].status is SequenceStatus.PAUSED
    engine.scheduler.resume(child, [3])
    engine.run()
    expected = sampled_alone(
        [*engine.scheduler.tokens(parent), 3], params(seed=9, max_new_tokens=1)
    )
    assert engine.sampled[child] == expected


def test_forks_outlive_their_cancelled_original(lookahead: int) -> None:
    for steps in range(6):
        engine = FakeEngine(lookahead=lookahead, max_step_tokens=4)
        parent = engine.scheduler.submit(list(PROMPT), params())
        children = engine.scheduler.fork(parent, [1, 2])
        for _ in range(steps):
            engine.step()
        engine.scheduler.cancel(parent)
        engine.check()
        engine.run()
        for seed, child in enumerate(children, 1):
            assert engine.sampled[child] == sampled_alone(PROMPT, params(seed=seed)), steps
