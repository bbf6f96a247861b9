"""Rewinding: tokens go, pages stay as far as they serve, and nothing is computed twice."""

import pytest
from helpers.engine_cases.fake_engine import PAGE_SIZE, PROMPT, FakeEngine, params, sampled_alone

LONG_PROMPT = [5 + i % 9 for i in range(21)]


def run_until(engine: FakeEngine, seq: int, length: int) -> None:
    """Step until the sequence has at least `length` tokens."""
    while len(engine.scheduler.sequences[seq].tokens) < length:
        engine.step()
        engine.check()


def finish(engine: FakeEngine, seq: int) -> list[int]:
    """Run to the end and return what the sequence samples from now on."""
    engine.sampled[seq] = []
    engine.run()
    return engine.sampled[seq]


@pytest.mark.parametrize("cut", range(1, 9))
@pytest.mark.parametrize("new", [[], [8], [9] * 7])
def test_a_rewound_sequence_goes_on_as_if_the_tokens_had_never_been(
    cut: int, new: list[int], lookahead: int
) -> None:
    engine = FakeEngine(lookahead=lookahead, rewind_tokens=8)
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=None))
    run_until(engine, seq, len(PROMPT) + 10)
    kept = engine.scheduler.tokens(seq)[:-cut]
    assert engine.scheduler.rewind(seq, len(kept))
    assert engine.scheduler.tokens(seq) == kept
    engine.check()
    engine.scheduler.resume(seq, list(new))
    sampled = finish(engine, seq)
    assert sampled == sampled_alone(kept + new, params(max_new_tokens=None))
    # Without new tokens, the last token is computed again for its logits, as after any pause.
    assert engine.scheduler.counters.recomputed_tokens <= (0 if new else 1)
    assert engine.scheduler.counters.rewound_tokens == cut


def test_a_rewind_reports_nothing_and_drops_what_is_in_flight() -> None:
    engine = FakeEngine(lookahead=1)
    seq = engine.scheduler.submit(list(PROMPT), params())
    run_until(engine, seq, len(PROMPT) + 3)
    assert engine.in_flight
    engine.scheduler.rewind(seq, len(PROMPT))
    assert not any(event.tokens for event in engine.run())
    assert engine.scheduler.counters.dropped_tokens == 1
    assert engine.scheduler.tokens(seq) == PROMPT


def test_pages_beyond_the_end_are_given_back() -> None:
    engine = FakeEngine(prefix_cache=False, rewind_tokens=40)
    seq = engine.scheduler.submit(list(LONG_PROMPT), params(pause_token_ids=tuple(range(23))))
    engine.run()
    engine.scheduler.rewind(seq, PAGE_SIZE + 1)
    engine.check()
    assert [len(table) for table in engine.scheduler.sequences[seq].tables] == [2, 2]


def test_a_cached_page_is_copied_before_it_is_written_again() -> None:
    engine = FakeEngine(rewind_tokens=8)
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=None))
    run_until(engine, seq, 2 * PAGE_SIZE + 2)  # the second page is full, and cached
    old = engine.scheduler.tokens(seq)
    engine.scheduler.rewind(seq, 2 * PAGE_SIZE - 2)
    engine.scheduler.resume(seq, [8, 8, 8])
    engine.run()
    # A prompt that begins with the old tokens finds the old page, unchanged.
    other = engine.scheduler.submit(old[: 2 * PAGE_SIZE + 1], params(max_new_tokens=None))
    hits = engine.scheduler.counters.prefix_hit_tokens
    assert finish(engine, other) == sampled_alone(
        old[: 2 * PAGE_SIZE + 1], params(max_new_tokens=None)
    )
    assert engine.scheduler.counters.prefix_hit_tokens == hits + 2 * PAGE_SIZE


def test_forks_keep_what_their_original_gives_up() -> None:
    engine = FakeEngine(rewind_tokens=8)
    seq = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=None))
    run_until(engine, seq, len(PROMPT) + 3)
    tokens = engine.scheduler.tokens(seq)
    (child,) = engine.scheduler.fork(seq, [7])
    engine.scheduler.rewind(seq, len(PROMPT) - 1)
    engine.scheduler.resume(seq, [9, 9])
    engine.run()
    expected = sampled_alone(tokens, params(seed=7, max_new_tokens=None))
    assert engine.sampled[child] == expected


def test_a_rewind_beyond_the_kept_window_computes_again() -> None:
    engine = FakeEngine(window=6, prefix_cache=False)
    seq = engine.scheduler.submit(list(LONG_PROMPT), params(max_new_tokens=None))
    run_until(engine, seq, len(LONG_PROMPT) + 6)
    kept = engine.scheduler.tokens(seq)[:9]
    engine.scheduler.rewind(seq, 9)
    assert not engine.scheduler.sequences[seq].holds_pages
    engine.scheduler.resume(seq, [8])
    assert finish(engine, seq) == sampled_alone([*kept, 8], params(max_new_tokens=None))
    assert engine.scheduler.counters.recomputed_tokens == 9


def test_an_offloaded_sequence_is_rewound_on_the_host() -> None:
    engine = FakeEngine(full=13, sliding=13, host=20, rewind_tokens=4, max_context=40)
    pausing = params(pause_token_ids=tuple(range(23)), max_new_tokens=None)
    seq = engine.scheduler.submit(list(LONG_PROMPT), pausing)
    engine.run()
    other = engine.scheduler.submit([6] * 25, params(max_new_tokens=10))
    engine.run()
    assert engine.scheduler.counters.offloaded == 1
    assert other not in engine.scheduler.sequences
    kept = engine.scheduler.tokens(seq)[:-3]
    engine.scheduler.rewind(seq, len(kept))
    engine.check()
    engine.scheduler.resume(seq, [7, 7])
    assert finish(engine, seq)[:1] == sampled_alone([*kept, 7, 7], params())[:1]
    assert engine.scheduler.counters.recomputed_tokens == 0


def test_without_a_page_for_the_copy_the_last_page_is_computed_again() -> None:
    engine = FakeEngine(full=13, sliding=40, rewind_tokens=8, max_context=48)
    seq = engine.scheduler.submit([6] * 40, params(max_new_tokens=None))
    run_until(engine, seq, 44)
    (pool, _) = engine.page_tables.pools
    while pool.available:  # somebody else holds the rest
        engine.page_tables.pools[0].allocate()
    kept = engine.scheduler.tokens(seq)[:38]
    engine.scheduler.rewind(seq, 38)
    assert engine.scheduler.sequences[seq].computed == 36
    assert engine.scheduler.tokens(seq) == kept


@pytest.mark.parametrize("length", [0, -1, len(PROMPT) + 1])
def test_impossible_lengths_change_nothing(length: int) -> None:
    engine = FakeEngine()
    seq = engine.scheduler.submit(list(PROMPT), params())
    with pytest.raises(ValueError, match=f"can be rewound to 1 to {len(PROMPT)} of them"):
        engine.scheduler.rewind(seq, length)
    assert finish(engine, seq) == sampled_alone(PROMPT, params())


def test_rewinding_what_has_finished_or_never_was() -> None:
    engine = FakeEngine()
    seq = engine.scheduler.submit(list(PROMPT), params())
    engine.run()
    assert engine.scheduler.rewind(seq, 1) is False
    with pytest.raises(ValueError, match="no live sequence 17"):
        engine.scheduler.rewind(17, 1)


def test_a_waiting_prompt_is_rewound_before_it_runs() -> None:
    engine = FakeEngine()
    seq = engine.scheduler.submit(list(PROMPT), params())
    engine.scheduler.rewind(seq, 3)
    assert not engine.scheduler.has_work
    engine.scheduler.resume(seq, [9])
    assert finish(engine, seq) == sampled_alone([*PROMPT[:3], 9], params())
