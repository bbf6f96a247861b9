"""Sequences that lose their pages because a pool is full, with and without host memory."""

import pytest
from helpers.engine_cases.fake_engine import EVERY_TOKEN, PROMPT, FakeEngine, params, sampled_alone


@pytest.mark.parametrize("host", [0, 40])
def test_preemption_loses_no_token(lookahead: int, host: int) -> None:
    engine = FakeEngine(15, 30, lookahead=lookahead, host=host, prefix_cache=False)
    seqs = [
        engine.scheduler.submit(list(PROMPT), params(seed=s, max_new_tokens=30)) for s in range(4)
    ]
    engine.run()
    for seed, seq in enumerate(seqs):
        assert engine.sampled[seq] == sampled_alone(PROMPT, params(seed=seed, max_new_tokens=30))
    counters = engine.scheduler.counters
    assert counters.preempted > 0
    assert (counters.offloaded > 0) == bool(host)
    assert (counters.recomputed_tokens == 0) == bool(host)


@pytest.mark.parametrize("host", [0, 40])
def test_paused_sequences_that_hold_all_pages_do_not_block(lookahead: int, host: int) -> None:
    engine = FakeEngine(15, 30, lookahead=lookahead, host=host)
    pausing = params(pause_token_ids=EVERY_TOKEN)
    prompts = [list(range(3, 23)), list(range(22, 2, -1))]
    paused = [engine.scheduler.submit(list(prompt), pausing) for prompt in prompts]
    engine.run()
    other = list(range(8, 20))
    seq = engine.scheduler.submit(list(other), params(max_new_tokens=10))
    engine.run()
    holds = [engine.scheduler.sequences[seq].holds_pages for seq in paused]
    assert holds == [True, False], "only the most recently paused sequence loses its pages"
    assert engine.sampled[seq] == sampled_alone(other, params(max_new_tokens=10))
    shorts = [[3, 9, 10, 11], [4, 9, 10, 11]]
    seqs = [engine.scheduler.submit(list(short), params(max_new_tokens=18)) for short in shorts]
    engine.run()
    for seq, short in zip(seqs, shorts, strict=True):
        assert engine.sampled[seq] == sampled_alone(short, params(max_new_tokens=18))
    counters = engine.scheduler.counters
    assert (counters.reclaimed, counters.preempted) == (2, 0), "paused ones go before running ones"
    for seq, prompt in zip(paused, prompts, strict=True):
        first = engine.sampled[seq][0]
        engine.scheduler.resume(seq, [5])
        engine.run()
        assert engine.sampled[seq][1:2] == sampled_alone(
            [*prompt, first, 5], params(max_new_tokens=1)
        )
