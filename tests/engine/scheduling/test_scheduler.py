"""The scheduler alone, without a model or torch; pages of token ids show every corruption."""

import subprocess
import sys

import pytest
from helpers.engine_cases.fake_engine import (
    EOS,
    EVERY_TOKEN,
    PAUSE,
    PROMPT,
    FakeEngine,
    params,
    sampled_alone,
)

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.sequence import SequenceStatus


def test_scheduler_imports_no_torch() -> None:
    code = "import sys, eightfold.engine.scheduling.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_batching_mixed_lengths_changes_no_token(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    prompts = [PROMPT[:n] for n in (1, 3, 4, 5, 7)]
    seqs = [engine.scheduler.submit(list(p), params(seed=i)) for i, p in enumerate(prompts)]
    engine.run()
    for i, (seq, prompt) in enumerate(zip(seqs, prompts, strict=True)):
        assert engine.sampled[seq] == sampled_alone(prompt, params(seed=i))
        assert len(engine.sampled[seq]) == 12


def test_decodes_advance_while_a_long_prompt_is_prefilled(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, max_step_tokens=4)
    first = engine.scheduler.submit([5], params(max_new_tokens=30))
    for _ in range(3):
        engine.step()
    engine.scheduler.submit(list(range(3, 33)), params())
    before = len(engine.sampled[first])
    for _ in range(8):
        engine.step()
        engine.check()
    assert len(engine.sampled[first]) == before + 8


@pytest.mark.parametrize(("answer", "steps"), [(1, 1), (5, 1), (20, 3)])
def test_a_resumed_sequence_goes_before_a_long_prompt(
    lookahead: int, answer: int, steps: int
) -> None:
    engine = FakeEngine(lookahead=lookahead)
    seq = engine.scheduler.submit([5], params(pause_token_ids=EVERY_TOKEN))
    engine.run()
    engine.scheduler.submit(list(range(3, 43)), params(max_new_tokens=5))
    engine.step()
    engine.scheduler.resume(seq, [4] * answer)
    for _ in range(steps + lookahead):
        assert len(engine.sampled[seq]) == 1
        engine.step()
        engine.check()
    assert len(engine.sampled[seq]) == 2


def test_new_prompts_leave_the_pages_that_a_resumed_sequence_waits_for() -> None:
    engine = FakeEngine(14, 90, max_running=8, max_step_tokens=40)
    seq = engine.scheduler.submit([5] * 4, params(pause_token_ids=EVERY_TOKEN))
    engine.run()
    for step in range(80):
        if step == 6:
            assert engine.scheduler.resume(seq, [4] * 30)
        if len(engine.scheduler.queues.waiting) < 4:
            engine.scheduler.submit([7], params(max_new_tokens=6))
        engine.step()
        engine.check()
    assert len(engine.sampled[seq]) == 2, "the resumed sequence starves"


def test_a_step_never_exceeds_its_token_budget() -> None:
    engine = FakeEngine(max_step_tokens=5)
    for n in (20, 3, 9):
        engine.scheduler.submit(list(range(3, 3 + n)), params())
    while (plan := engine.scheduler.plan()) is not None:
        assert plan.token_count <= 5
        longer = [entry.count > 1 for entry in plan.scheduled]
        assert longer == sorted(longer), "the GPU's kernels take single tokens first"
        engine.scheduler.commit(plan, engine.launch(plan))


def test_a_pause_keeps_pages_and_a_resume_computes_only_new_tokens(lookahead: int) -> None:
    pausing = params(pause_token_ids=EVERY_TOKEN, max_new_tokens=None)
    engine = FakeEngine(256, 256, lookahead=lookahead, max_context=600)
    seq = engine.scheduler.submit(list(PROMPT), pausing)
    total = len(PROMPT)
    for turn in range(128):
        events = engine.run()
        assert [e.reason for e in events if e.seq == seq] == ["pause"]
        assert engine.scheduler.sequences[seq].holds_pages
        new = [3 + turn % 5] * (1 + turn % 3)
        assert engine.scheduler.resume(seq, new)
        engine.check()
        total += 1 + len(new)
    engine.run()
    counters = engine.scheduler.counters
    assert counters.recomputed_tokens == 0
    # Only with lookahead has a step computed the last sampled token as well.
    assert counters.computed_tokens == total + lookahead
    assert counters.pauses == 129


def test_resume_without_tokens_continues(lookahead: int) -> None:
    pausing = params(pause_token_ids=EVERY_TOKEN, max_new_tokens=6)
    engine = FakeEngine(lookahead=lookahead)
    seq = engine.scheduler.submit(list(PROMPT), pausing)
    for _ in range(6):
        engine.run()
        engine.scheduler.resume(seq, [])
        engine.check()
    engine.run()
    assert engine.sampled[seq] == sampled_alone(PROMPT, params(max_new_tokens=6))


def test_resume_while_the_step_after_the_pause_token_is_in_flight() -> None:
    engine = FakeEngine(lookahead=1)
    pausing = params(pause_token_ids=EVERY_TOKEN, max_new_tokens=8)
    seq = engine.scheduler.submit(list(PROMPT), pausing)
    while not any(e.reason == "pause" for e in engine.step()):
        engine.check()
    assert engine.scheduler.sequences[seq].steps_in_flight == 1
    engine.scheduler.resume(seq, [4, 4])
    engine.check()
    engine.run()
    sampled = engine.sampled[seq]
    assert sampled[1:2] == sampled_alone([*PROMPT, sampled[0], 4, 4], params(max_new_tokens=1))


def test_stop_tokens_and_lengths_finish_a_sequence(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, max_context=16)
    stopped = engine.scheduler.submit([5], params(stop_token_ids=EVERY_TOKEN))
    short = engine.scheduler.submit([6], params(max_new_tokens=1))
    full = engine.scheduler.submit([7], params(max_new_tokens=None))
    reasons = {e.seq: e.reason for e in engine.run() if e.status == "finished"}
    assert reasons == {stopped: "eos", short: "length", full: "context"}
    assert [len(engine.sampled[s]) for s in (stopped, short, full)] == [1, 1, 15]
    assert not engine.scheduler.sequences


def test_pause_tokens_override_the_default_stop_tokens() -> None:
    engine = FakeEngine()
    seq = engine.scheduler.submit([5], SamplingParams(pause_token_ids=(EOS, PAUSE)))
    assert engine.scheduler.sequences[seq].stop_ids == frozenset()
    other = engine.scheduler.submit([5], SamplingParams())
    assert engine.scheduler.sequences[other].stop_ids == frozenset({EOS})


def test_pages_behind_the_window_are_freed(lookahead: int) -> None:
    engine = FakeEngine(64, 64, window=6, lookahead=lookahead, max_context=200)
    seq = engine.scheduler.submit([5] * 40, params(max_new_tokens=120))
    pool = engine.page_tables.pools[1]
    while engine.scheduler.has_work:
        engine.step()
        # The window and each chunk in flight, neither of which starts at a page boundary.
        assert pool.capacity - pool.available <= (6 + 8 * (1 + lookahead)) // 4 + 2
    assert len(engine.sampled[seq]) == 120


def test_requests_that_can_never_fit_are_refused_with_the_size_they_need() -> None:
    engine = FakeEngine(max_context=16)
    with pytest.raises(ValueError, match=r"17 tokens .* needs room for 18, .* at most 16"):
        engine.scheduler.submit([3] * 17, SamplingParams())
    with pytest.raises(ValueError, match="needs room for 20"):
        engine.scheduler.submit([3] * 10, SamplingParams(max_new_tokens=10))
    with pytest.raises(ValueError, match="at least one token"):
        engine.scheduler.submit([], SamplingParams())
    with pytest.raises(ValueError, match="enlarge the pool"):
        FakeEngine(full=4, max_context=48)


def test_requests_about_finished_or_unknown_sequences() -> None:
    engine = FakeEngine(max_context=16)
    seq = engine.scheduler.submit([5], params(max_new_tokens=1))
    with pytest.raises(ValueError, match="not paused"):
        engine.scheduler.resume(seq, [3])
    engine.run()
    assert engine.scheduler.resume(seq, [3]) is False
    assert engine.scheduler.cancel(seq) is False
    for call in (engine.scheduler.cancel, lambda n: engine.scheduler.resume(n, [3])):
        with pytest.raises(ValueError, match="There is no"):
            call(99)
    with pytest.raises(ValueError, match="no live sequence"):
        engine.scheduler.fork(seq, [1])
    paused = engine.scheduler.submit([5], params(pause_token_ids=EVERY_TOKEN))
    engine.run()
    with pytest.raises(ValueError, match="at most 16"):
        engine.scheduler.resume(paused, [3] * 14)
    assert engine.scheduler.sequences[paused].status is SequenceStatus.PAUSED
    engine.check()


def test_a_failed_step_loses_no_token(lookahead: int) -> None:
    for steps in range(1, 9):
        engine = FakeEngine(20, 40, lookahead=lookahead, host=4)
        seqs = [engine.scheduler.submit(list(PROMPT), params(seed=s)) for s in range(3)]
        child = engine.scheduler.fork(seqs[0], [7])[0]
        for _ in range(steps):
            engine.step()
        engine.fail()
        engine.check()
        engine.run()
        for seed, seq in zip((0, 1, 2, 7), (*seqs, child), strict=True):
            assert engine.sampled[seq] == sampled_alone(PROMPT, params(seed=seed))


def test_every_token_is_computed_once(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, prefix_cache=False, max_step_tokens=32)
    for seed in range(3):
        engine.scheduler.submit(list(PROMPT), params(seed=seed, max_new_tokens=20))
    while engine.scheduler.has_work:
        engine.step()
        for plan, _ in engine.in_flight:
            assert all(e.count == 1 for e in plan.scheduled if e.start >= len(PROMPT))
    assert engine.scheduler.counters.recomputed_tokens == 0
    assert engine.scheduler.counters.computed_tokens == 3 * (len(PROMPT) + 19)
