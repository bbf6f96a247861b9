"""Prompts that begin like an earlier one reuse its pages."""

import pytest
from helpers.engine_cases.fake_engine import FakeEngine, params, sampled_alone


def test_a_second_prompt_reuses_the_pages_of_a_shared_prefix(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    shared = list(range(3, 19))
    for tail in ([20], [21, 22]):
        seq = engine.scheduler.submit([*shared, *tail], params())
        engine.run()
        assert engine.sampled[seq] == sampled_alone([*shared, *tail], params())
    assert engine.scheduler.counters.prefix_hit_tokens == 16
    again = engine.scheduler.submit(list(shared), params())
    engine.run()
    # All pages are cached, yet the last one is computed, because its last token gives the logits.
    assert engine.sampled[again] == sampled_alone(shared, params())
    assert engine.scheduler.counters.prefix_hit_tokens == 16 + 12


@pytest.mark.parametrize("sliding", [12, 30])
def test_a_long_answer_does_not_evict_the_pages_of_its_prompt(lookahead: int, sliding: int) -> None:
    engine = FakeEngine(200, sliding, lookahead=lookahead, max_context=200)
    shared = list(range(3, 19))
    for tail in ([20], [21, 22]):
        engine.scheduler.submit([*shared, *tail], params(max_new_tokens=120))
        engine.run()
    assert engine.scheduler.counters.prefix_hit_tokens == 16


def test_no_prefix_is_reused_if_the_cache_is_disabled() -> None:
    engine = FakeEngine(prefix_cache=False)
    for _ in range(2):
        engine.scheduler.submit(list(range(3, 19)), params())
        engine.run()
    assert engine.scheduler.counters.prefix_hit_tokens == 0
