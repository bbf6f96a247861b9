"""The scheduler alone: no model, no torch; pages of token ids show every corruption."""

import subprocess
import sys

import pytest
from helpers.fake_runner import EOS, PAUSE, FakeEngine, undisturbed

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.sequence import SequenceStatus

FREE = SamplingParams(stop_token_ids=(), max_new_tokens=12, seed=3)
PROMPT = [5, 6, 7, 8, 9, 10, 11]


@pytest.fixture(params=[0, 1], ids=["direct", "lookahead"])
def lookahead(request: pytest.FixtureRequest) -> int:
    return request.param


def params(**changes: object) -> SamplingParams:
    return SamplingParams(**{"stop_token_ids": (), "max_new_tokens": 12, "seed": 3, **changes})


def test_scheduler_imports_no_torch() -> None:
    code = "import sys, eightfold.engine.scheduling.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_batch_of_mixed_lengths_equals_alone(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    prompts = [PROMPT[:n] for n in (1, 3, 4, 5, 7)]
    seqs = [engine.scheduler.submit(list(p), params(seed=i)) for i, p in enumerate(prompts)]
    engine.run()
    for i, (seq, prompt) in enumerate(zip(seqs, prompts, strict=True)):
        assert engine.history[seq] == undisturbed(prompt, params(seed=i))
        assert len(engine.history[seq]) == 12


def test_decodes_go_on_beside_a_long_prompt(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, max_step_tokens=4)
    first = engine.scheduler.submit([5], params(max_new_tokens=30))
    for _ in range(3):
        engine.step()
    engine.scheduler.submit(list(range(3, 33)), params())
    before = len(engine.history[first])
    for _ in range(8):
        engine.step()
        engine.check()
    assert len(engine.history[first]) == before + 8


@pytest.mark.parametrize(("answer", "steps"), [(1, 1), (5, 1), (20, 3)])
def test_a_resumed_sequence_goes_before_a_long_prompt(
    lookahead: int, answer: int, steps: int
) -> None:
    engine = FakeEngine(lookahead=lookahead)
    seq = engine.scheduler.submit([5], params(pause_token_ids=tuple(range(23))))
    engine.run()
    engine.scheduler.submit(list(range(3, 43)), params(max_new_tokens=5))
    engine.step()
    engine.scheduler.resume(seq, [4] * answer)
    for _ in range(steps + lookahead):
        assert len(engine.history[seq]) == 1
        engine.step()
        engine.check()
    assert len(engine.history[seq]) == 2


def test_new_prompts_do_not_take_the_pages_that_a_resumed_one_waits_for() -> None:
    engine = FakeEngine(14, 90, max_running=8, max_step_tokens=40)
    seq = engine.scheduler.submit([5] * 4, params(pause_token_ids=tuple(range(23))))
    engine.run()
    for step in range(80):
        if step == 6:
            assert engine.scheduler.resume(seq, [4] * 30)
        if len(engine.scheduler.queues.waiting) < 4:
            engine.scheduler.submit([7], params(max_new_tokens=6))
        engine.step()
        engine.check()
    assert len(engine.history[seq]) == 2, "it starves"


def test_a_step_never_exceeds_its_budget() -> None:
    engine = FakeEngine(max_step_tokens=5)
    for n in (20, 3, 9):
        engine.scheduler.submit(list(range(3, 3 + n)), params())
    while (plan := engine.scheduler.plan()) is not None:
        assert plan.token_count <= 5
        longer = [entry.count > 1 for entry in plan.scheduled]
        assert longer == sorted(longer), "the GPU's kernels take single tokens first"
        engine.scheduler.commit(plan, engine.launch(plan))


def test_pause_keeps_pages_and_resume_computes_only_new_tokens(lookahead: int) -> None:
    pausing = params(pause_token_ids=tuple(range(23)), max_new_tokens=None)
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
    stats = engine.scheduler.counters
    assert stats.recomputed_tokens == 0
    # The last sampled token is computed by a lookahead step, and not without one.
    assert stats.computed_tokens == total + lookahead
    assert stats.pauses == 129


def test_resume_with_no_token_continues(lookahead: int) -> None:
    pausing = params(pause_token_ids=tuple(range(23)), max_new_tokens=6)
    engine = FakeEngine(lookahead=lookahead)
    seq = engine.scheduler.submit(list(PROMPT), pausing)
    for _ in range(6):
        engine.run()
        engine.scheduler.resume(seq, [])
        engine.check()
    engine.run()
    assert engine.history[seq] == undisturbed(PROMPT, params(max_new_tokens=6))


def test_resume_while_the_step_with_the_pause_token_is_in_flight() -> None:
    engine = FakeEngine(lookahead=1)
    pausing = params(pause_token_ids=tuple(range(23)), max_new_tokens=8)
    seq = engine.scheduler.submit(list(PROMPT), pausing)
    while not any(e.reason == "pause" for e in engine.step()):
        engine.check()
    assert engine.scheduler.sequences[seq].steps_in_flight == 1
    engine.scheduler.resume(seq, [4, 4])
    engine.check()
    engine.run()
    drawn = engine.history[seq]
    assert drawn[1:2] == undisturbed([*PROMPT, drawn[0], 4, 4], params(max_new_tokens=1))


def test_end_tokens_and_lengths(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, max_context=16)
    ended = engine.scheduler.submit([5], params(stop_token_ids=tuple(range(23))))
    short = engine.scheduler.submit([6], params(max_new_tokens=1))
    full = engine.scheduler.submit([7], params(max_new_tokens=None))
    reasons = {e.seq: e.reason for e in engine.run() if e.status == "finished"}
    assert reasons == {ended: "eos", short: "length", full: "context"}
    assert [len(engine.history[s]) for s in (ended, short, full)] == [1, 1, 15]
    assert not engine.scheduler.sequences


def test_default_stop_tokens_and_pause_tokens_win_over_them() -> None:
    engine = FakeEngine()
    seq = engine.scheduler.submit([5], SamplingParams(pause_token_ids=(EOS, PAUSE)))
    assert engine.scheduler.sequences[seq].stop_ids == frozenset()
    other = engine.scheduler.submit([5], SamplingParams())
    assert engine.scheduler.sequences[other].stop_ids == frozenset({EOS})


@pytest.mark.parametrize("length", [1, 2, 4, 5, 8, 11])
def test_forks_share_pages_and_draw_as_if_alone(lookahead: int, length: int) -> None:
    prompt = list(range(3, 3 + length))
    engine = FakeEngine(lookahead=lookahead)
    parent = engine.scheduler.submit(list(prompt), params(seed=0))
    kids = engine.scheduler.fork(parent, [1, 2, 3])
    engine.run()
    for i, seq in enumerate([parent, *kids]):
        assert engine.history[seq] == undisturbed(prompt, params(seed=i)), i
    stats = engine.scheduler.counters
    # The prompt once, a last token per fork, and 11 or 12 of the 12 drawn tokens each.
    assert stats.computed_tokens <= length + 3 + 4 * 12
    assert stats.forked_tokens == (3 * (length - 1))


def test_forks_take_one_page_each_of_a_pool(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead, prefix_cache=False)
    parent = engine.scheduler.submit(
        list(range(3, 18)), params(pause_token_ids=tuple(range(23)), max_new_tokens=None)
    )
    engine.run()
    before = [pool.available for pool in engine.page_tables.pools]
    engine.scheduler.fork(parent, [1, 2, 3])
    engine.check()
    # 16 tokens, the last of which each fork computes itself: the page it lies in is copied.
    assert [pool.available for pool in engine.page_tables.pools] == [n - 3 for n in before]


def test_fork_of_a_running_and_of_a_paused_sequence(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    parent = engine.scheduler.submit(list(PROMPT), params(max_new_tokens=20))
    for _ in range(6):
        engine.step()
    known = engine.scheduler.tokens(parent)
    kid = engine.scheduler.fork(parent, [9])[0]
    engine.run()
    spent = len(known) - len(PROMPT)
    assert engine.history[kid] == undisturbed(known, params(seed=9, max_new_tokens=20 - spent))
    pausing = params(pause_token_ids=tuple(range(23)))
    parent = engine.scheduler.submit(list(PROMPT), pausing)
    engine.run()
    kid = engine.scheduler.fork(parent, [9])[0]
    engine.check()
    assert engine.scheduler.sequences[kid].status is SequenceStatus.PAUSED
    engine.scheduler.resume(kid, [3])
    engine.run()
    expected = undisturbed([*engine.scheduler.tokens(parent), 3], params(seed=9, max_new_tokens=1))
    assert engine.history[kid] == expected


def test_cancel_of_the_original_leaves_its_forks(lookahead: int) -> None:
    for steps in range(6):
        engine = FakeEngine(lookahead=lookahead, max_step_tokens=4)
        parent = engine.scheduler.submit(list(PROMPT), params())
        kids = engine.scheduler.fork(parent, [1, 2])
        for _ in range(steps):
            engine.step()
        engine.scheduler.cancel(parent)
        engine.check()
        engine.run()
        for seed, kid in enumerate(kids, 1):
            assert engine.history[kid] == undisturbed(PROMPT, params(seed=seed)), steps


def test_second_problem_reuses_the_pages_of_the_same_beginning(lookahead: int) -> None:
    engine = FakeEngine(lookahead=lookahead)
    shared = list(range(3, 19))
    for tail in ([20], [21, 22]):
        seq = engine.scheduler.submit([*shared, *tail], params())
        engine.run()
        assert engine.history[seq] == undisturbed([*shared, *tail], params())
    assert engine.scheduler.counters.prefix_hit_tokens == 16
    again = engine.scheduler.submit(list(shared), params())
    engine.run()
    # Page by page all of it is cached, yet one page is computed: its last token gives the logits.
    assert engine.history[again] == undisturbed(shared, params())
    assert engine.scheduler.counters.prefix_hit_tokens == 16 + 12


@pytest.mark.parametrize("sliding", [12, 30])
def test_a_long_answer_does_not_push_out_the_pages_of_the_prompt(
    lookahead: int, sliding: int
) -> None:
    engine = FakeEngine(200, sliding, lookahead=lookahead, max_context=200)
    shared = list(range(3, 19))
    for tail in ([20], [21, 22]):
        engine.scheduler.submit([*shared, *tail], params(max_new_tokens=120))
        engine.run()
    assert engine.scheduler.counters.prefix_hit_tokens == 16


def test_pages_behind_the_window_are_given_back(lookahead: int) -> None:
    engine = FakeEngine(64, 64, window=6, lookahead=lookahead, max_context=200)
    seq = engine.scheduler.submit([5] * 40, params(max_new_tokens=120))
    pool = engine.page_tables.pools[1]
    while engine.scheduler.has_work:
        engine.step()
        # The window and each chunk in flight, neither of which begins at a page's border.
        assert pool.capacity - pool.available <= (6 + 8 * (1 + lookahead)) // 4 + 2
    assert len(engine.history[seq]) == 120


def test_no_prefix_cache_when_switched_off() -> None:
    engine = FakeEngine(prefix_cache=False)
    for _ in range(2):
        engine.scheduler.submit(list(range(3, 19)), params())
        engine.run()
    assert engine.scheduler.counters.prefix_hit_tokens == 0


@pytest.mark.parametrize("host", [0, 40])
def test_preemption_keeps_tokens(lookahead: int, host: int) -> None:
    engine = FakeEngine(15, 30, lookahead=lookahead, host=host, prefix_cache=False)
    seqs = [
        engine.scheduler.submit(list(PROMPT), params(seed=s, max_new_tokens=30)) for s in range(4)
    ]
    engine.run()
    for seed, seq in enumerate(seqs):
        assert engine.history[seq] == undisturbed(PROMPT, params(seed=seed, max_new_tokens=30))
    stats = engine.scheduler.counters
    assert stats.preempted > 0
    assert (stats.offloaded > 0) == bool(host)
    assert (stats.recomputed_tokens == 0) == bool(host)


@pytest.mark.parametrize("host", [0, 40])
def test_paused_sequences_that_hold_everything_do_not_block(lookahead: int, host: int) -> None:
    engine = FakeEngine(15, 30, lookahead=lookahead, host=host)
    pausing = params(pause_token_ids=tuple(range(23)))
    prompts = [list(range(3, 23)), list(range(22, 2, -1))]
    paused = [engine.scheduler.submit(list(prompt), pausing) for prompt in prompts]
    engine.run()
    other = list(range(8, 20))
    seq = engine.scheduler.submit(list(other), params(max_new_tokens=10))
    engine.run()
    holds = [engine.scheduler.sequences[seq].holds_pages for seq in paused]
    assert holds == [True, False], "the newest paused one goes, and no more than are needed"
    assert engine.history[seq] == undisturbed(other, params(max_new_tokens=10))
    shorts = [[3, 9, 10, 11], [4, 9, 10, 11]]
    seqs = [engine.scheduler.submit(list(short), params(max_new_tokens=18)) for short in shorts]
    engine.run()
    for seq, short in zip(seqs, shorts, strict=True):
        assert engine.history[seq] == undisturbed(short, params(max_new_tokens=18))
    stats = engine.scheduler.counters
    assert (stats.reclaimed, stats.preempted) == (2, 0), "who is paused goes before who runs"
    for seq, prompt in zip(paused, prompts, strict=True):
        first = engine.history[seq][0]
        engine.scheduler.resume(seq, [5])
        engine.run()
        assert engine.history[seq][1:2] == undisturbed(
            [*prompt, first, 5], params(max_new_tokens=1)
        )


def test_requests_that_can_never_fit_are_refused_with_the_figure() -> None:
    engine = FakeEngine(max_context=16)
    with pytest.raises(ValueError, match=r"17 tokens .* needs room for 18, .* at most 16"):
        engine.scheduler.submit([3] * 17, SamplingParams())
    with pytest.raises(ValueError, match="needs room for 20"):
        engine.scheduler.submit([3] * 10, SamplingParams(max_new_tokens=10))
    with pytest.raises(ValueError, match="at least one token"):
        engine.scheduler.submit([], SamplingParams())
    with pytest.raises(ValueError, match="enlarge the pool"):
        FakeEngine(full=4, max_context=48)


def test_requests_on_ended_or_wrong_sequences() -> None:
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
    paused = engine.scheduler.submit([5], params(pause_token_ids=tuple(range(23))))
    engine.run()
    with pytest.raises(ValueError, match="at most 16"):
        engine.scheduler.resume(paused, [3] * 14)
    assert engine.scheduler.sequences[paused].status is SequenceStatus.PAUSED
    engine.check()


def test_after_a_failed_step_every_token_is_kept(lookahead: int) -> None:
    for steps in range(1, 9):
        engine = FakeEngine(20, 40, lookahead=lookahead, host=4)
        seqs = [engine.scheduler.submit(list(PROMPT), params(seed=s)) for s in range(3)]
        kid = engine.scheduler.fork(seqs[0], [7])[0]
        for _ in range(steps):
            engine.step()
        engine.fail()
        engine.check()
        engine.run()
        for seed, seq in zip((0, 1, 2, 7), (*seqs, kid), strict=True):
            assert engine.history[seq] == undisturbed(PROMPT, params(seed=seed))
