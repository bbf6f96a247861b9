"""Sequences in every phase are cancelled, preempted and finished."""

import pytest
from helpers.engine_cases.fake_engine import EVERY_TOKEN, FakeEngine, expected_token, sampled_alone

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.sequence import SequenceStatus

PROMPT = list(range(3, 14))
WINDOW = 6


def start(
    phase: str, lookahead: int, in_flight: bool, host: int = 0, **changes: object
) -> tuple[FakeEngine, int]:
    """Return an engine with one sequence in ``phase``, and the number of that sequence.

    If ``in_flight``, a step that includes the sequence is in flight. Without lookahead, this is the
    state in which another thread's calls find the engine while a step runs.
    """
    pausing = phase in ("paused", "resuming")
    settings = {"stop_token_ids": (), "seed": 5, **changes}
    if pausing:
        settings["pause_token_ids"] = EVERY_TOKEN
    budget = 4 if phase == "chunk" else 16
    engine = FakeEngine(lookahead=lookahead, host=host, max_step_tokens=budget, prefix_cache=False)
    seq = engine.scheduler.submit(list(PROMPT), SamplingParams(**settings))
    state = engine.scheduler.sequences[seq]
    if phase == "chunk":
        engine.launch_step()
        engine.commit_step()
        assert 0 < state.computed < len(PROMPT)
    elif phase == "decode":
        while len(engine.sampled.get(seq, [])) < 3:
            engine.step()
    elif pausing:
        while state.status is not SequenceStatus.PAUSED:
            engine.step()
    if phase == "resuming":
        while engine.in_flight:
            engine.commit_step()
        engine.scheduler.resume(seq, [3, 3, 3])
    if in_flight and phase != "paused" and not engine.in_flight:
        engine.launch_step()
    while engine.in_flight and not in_flight:
        engine.commit_step()
    engine.check()
    # A paused sequence is in flight only with the surplus step that lookahead launched.
    assert bool(state.steps_in_flight) == (in_flight and (phase != "paused" or lookahead == 1))
    return engine, seq


def finish(engine: FakeEngine, seq: int) -> str | None:
    """Run to the end and return why the sequence finished."""
    reason = None
    for event in engine.run():
        if event.seq == seq and event.status == "finished":
            reason = event.reason
    return reason


PHASES = ["prefill", "chunk", "decode", "paused", "resuming"]


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_every_phase(phase: str, in_flight: bool, lookahead: int) -> None:
    engine, seq = start(phase, lookahead, in_flight, max_new_tokens=20)
    held = [list(table) for table in engine.scheduler.sequences[seq].tables]
    neighbor = engine.scheduler.submit([9, 9], SamplingParams(stop_token_ids=(), max_new_tokens=9))
    sampled = len(engine.sampled.get(seq, []))
    assert engine.scheduler.cancel(seq)
    engine.check()
    if engine.scheduler.sequences.get(seq):
        assert engine.in_flight, "only pages of a step in flight are freed later"
        assert engine.scheduler.sequences[seq].tables == held
    else:
        assert not in_flight or not engine.in_flight
    assert finish(engine, seq) == "cancelled"
    assert len(engine.sampled.get(seq, [])) == sampled
    alone = sampled_alone([9, 9], SamplingParams(stop_token_ids=(), max_new_tokens=9))
    assert engine.sampled[neighbor] == alone
    assert engine.page_tables.pools[0].available == engine.page_tables.pools[0].capacity


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("host", [0, 64])
@pytest.mark.parametrize("phase", PHASES)
def test_preempt_in_every_phase(phase: str, host: int, lookahead: int) -> None:
    engine, seq = start(phase, lookahead, in_flight=True, host=host, max_new_tokens=7)
    state = engine.scheduler.sequences[seq]
    assert state.holds_pages
    while engine.in_flight:
        if state.steps_in_flight:
            with pytest.raises(AssertionError, match="in flight"):
                engine.scheduler.preemption.preempt(state)
        engine.commit_step()
    known = list(state.tokens)
    engine.scheduler.preemption.preempt(state)
    engine.check()
    assert state.tokens == known
    assert not state.holds_pages
    assert bool(state.host_tables) == (host > 0)
    # In the pausing phases every token is a pause token: resume until seven tokens are sampled.
    given = {len(PROMPT) + 1: [3, 3, 3]} if phase == "resuming" else {}
    while engine.scheduler.sequences:
        if state.status is SequenceStatus.PAUSED:
            given[len(state.tokens)] = [4]
            engine.scheduler.resume(seq, [4])
        engine.run()
    mirror = list(PROMPT)
    for token in engine.sampled[seq]:
        assert token == expected_token(5, mirror, WINDOW)
        mirror.append(token)
        mirror += given.get(len(mirror), [])
    assert len(engine.sampled[seq]) == 7
    assert (engine.scheduler.counters.recomputed_tokens == 0) == bool(host)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("reason", ["eos", "length"])
@pytest.mark.parametrize("phase", PHASES)
def test_finish_in_every_phase(phase: str, reason: str, lookahead: int) -> None:
    limit = {"prefill": 1, "chunk": 1, "decode": 5, "paused": 2, "resuming": 2}[phase]
    given = [3, 3, 3] if phase in ("paused", "resuming") else []
    mirror, sampled = list(PROMPT), []
    for _ in range(limit):
        sampled.append(expected_token(5, mirror, WINDOW))
        mirror += [sampled[-1], *given] if len(sampled) == 1 else [sampled[-1]]
    assert sampled[-1] not in sampled[:-1], "the last token must be able to serve as the stop token"
    stops, limit = ((sampled[-1],), 30) if reason == "eos" else ((), limit)
    pauses = tuple(token for token in EVERY_TOKEN if given and token not in stops)
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
            engine.in_flight.append((plan, engine.launch(plan)))
            engine.check()
    assert finish(engine, seq) == reason
    assert engine.sampled[seq] == sampled
    engine.check()
    # A pause or stop token is noticed only when the next step may be in flight already. The step of
    # the last token by length is known in advance.
    two_steps = lookahead or phase == "resuming"  # in flight when the last token is read
    surplus = lookahead * bool(given) + (reason == "eos" and two_steps)
    assert engine.scheduler.counters.dropped_tokens == surplus
    assert engine.page_tables.pools[0].available == engine.page_tables.pools[0].capacity
