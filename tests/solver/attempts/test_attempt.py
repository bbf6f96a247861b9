"""The state machine of one attempt (1 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.scripted_engine import TOKENIZER, boxed, call

from eightfold.solver.attempts.attempt import (
    Attempt,
    CallRecord,
    CallTools,
    Ending,
    Feed,
    AttemptLimits,
    State,
    attempt_seed,
)
from eightfold.solver.chat.prompt_texts import Prompts
from eightfold.solver.chat import load_protocol


def machine(**limits: int) -> Attempt:
    return Attempt(0, 1, load_protocol(TOKENIZER, Prompts()), AttemptLimits(**limits))


def write(attempt: Attempt, text: str) -> Any:
    ids = TOKENIZER.encode(text)
    attempt.receive(ids, [0.1] * len(ids))
    action = attempt.paused(1.0)
    attempt.check()
    return action


def test_states_from_thought_to_answer() -> None:
    attempt = machine()
    assert attempt.state is State.THINKING
    action = write(attempt, "<|channel>thought\nhm<channel|>" + call("1", "2"))
    assert isinstance(action, CallTools)
    assert [one.code for one in action.calls] == ["1", "2"]  # type: ignore[union-attr]
    assert attempt.state is State.CALLING
    attempt.wait()
    assert attempt.state is State.WAITING
    records = [CallRecord("1", "ok", "one"), CallRecord("2", "error", "two", 0.1, "NameError")]
    fed = attempt.results(records, 2.0)
    assert isinstance(fed, Feed)
    assert not fed.drop_last
    text = TOKENIZER.decode(fed.ids)
    assert text.count("response:python") == 2
    assert attempt.state is State.THINKING
    assert write(attempt, boxed(42)) is None
    assert attempt.state is State.ANSWERED
    assert attempt.ending is Ending.ANSWERED
    assert attempt.answer == 42
    statistics = attempt.statistics()
    assert (statistics.calls, statistics.errors, statistics.answer) == (2, 1, 42)
    assert statistics.entropy == pytest.approx(0.1)


def test_wrong_order_of_events_is_an_error() -> None:
    attempt = machine()
    with pytest.raises(AssertionError, match="thinking, not waiting"):
        attempt.results([], 1.0)
    write(attempt, boxed(1))
    with pytest.raises(AssertionError, match="answered, not thinking"):
        attempt.receive([1], [])
    with pytest.raises(AssertionError, match="has ended"):
        attempt.end(Ending.TIME, 2.0)


def test_missing_box_is_nudged_once() -> None:
    attempt = machine()
    action = write(attempt, "It is 42.<turn|>")
    assert isinstance(action, Feed)
    assert "\\boxed{}" in TOKENIZER.decode(action.ids)
    assert write(attempt, "Fine, 42.<turn|>") is None
    assert attempt.ending is Ending.NO_ANSWER
    assert attempt.state is State.GAVE_UP


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<|channel>thought\n\\boxed{1}<channel|>none<turn|>", None),
        ("\\boxed{1} or \\boxed{2}<turn|>", 2),
        ("\\boxed{2} or \\boxed{?}<turn|>", 2),
        ("\\boxed{100000}<turn|>", None),
    ],
)
def test_answer_comes_from_the_final_channel(text: str, found: int | None) -> None:
    attempt = machine()
    write(attempt, text)
    assert attempt.answer == found


def test_ended_attempt_keeps_the_answer_it_had_given() -> None:
    attempt = machine()
    attempt.receive(TOKENIZER.encode("\\boxed{5} and so"), [])
    attempt.end(Ending.TIME, 3.0)
    assert attempt.answer == 5
    cancelled = machine()
    cancelled.receive(TOKENIZER.encode("\\boxed{5} and so"), [])
    cancelled.end(Ending.CONSENSUS, 3.0)
    assert cancelled.answer is None
    cancelled.check()


def test_seeds_differ_and_are_fixed() -> None:
    seeds = {attempt_seed(run, key, i) for run in (0, 1) for key in ("a", "b") for i in range(8)}
    assert len(seeds) == 32
    assert attempt_seed(0, "a", 0) == attempt_seed(0, "a", 0)
    assert all(0 <= seed < 2**64 for seed in seeds)
