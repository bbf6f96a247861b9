"""The state machine of one attempt (1 s)."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.solver_cases.scripted_engine import TOKENIZER, boxed, call

from eightfold.solver.attempts.attempt import (
    Attempt,
    AttemptLimits,
    CallTools,
    Ending,
    Feed,
    State,
    attempt_seed,
)
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.chat import load_protocol
from eightfold.solver.chat.prompt_texts import Prompts


def make_attempt(**limits: int) -> Attempt:
    return Attempt(0, 1, load_protocol(TOKENIZER, Prompts()), AttemptLimits(**limits))


def write(attempt: Attempt, text: str) -> Any:
    ids = TOKENIZER.encode(text)
    attempt.add_tokens(ids, [0.1] * len(ids))
    action = attempt.on_pause(1.0)
    attempt.check()
    return action


def test_states_from_a_thought_to_the_answer() -> None:
    attempt = make_attempt()
    assert attempt.state is State.THINKING
    action = write(attempt, "<|channel>thought\nhm<channel|>" + call("1", "2"))
    assert isinstance(action, CallTools)
    assert [one.code for one in action.calls] == ["1", "2"]  # type: ignore[union-attr]
    assert attempt.state is State.CALLING
    attempt.await_results()
    assert attempt.state is State.WAITING
    records = [CallRecord("1", "ok", "one"), CallRecord("2", "error", "two", 0.1, "NameError")]
    fed = attempt.on_results(records, 2.0)
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


def test_events_in_the_wrong_order_are_errors() -> None:
    attempt = make_attempt()
    with pytest.raises(AssertionError, match="thinking, not waiting"):
        attempt.on_results([], 1.0)
    write(attempt, boxed(1))
    with pytest.raises(AssertionError, match="answered, not thinking"):
        attempt.add_tokens([1], [])
    with pytest.raises(AssertionError, match="has ended"):
        attempt.end(Ending.TIME, 2.0)


def test_attempt_without_a_box_is_nudged_once() -> None:
    attempt = make_attempt()
    action = write(attempt, "It is 42.<turn|>")
    assert isinstance(action, Feed)
    assert "\\boxed{}" in TOKENIZER.decode(action.ids)
    assert write(attempt, "Fine, 42.<turn|>") is None
    assert attempt.ending is Ending.NO_ANSWER
    assert attempt.state is State.GAVE_UP


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<|channel>thought\n\\boxed{1}<channel|>none<turn|>", None),
        ("\\boxed{1}, no: \\boxed{2}<turn|>", 2),
        ("\\boxed{2} or \\boxed{?}<turn|>", 2),
        ("\\boxed{100000}<turn|>", None),
    ],
)
def test_answer_is_the_last_valid_box_of_the_final_text(text: str, answer: int | None) -> None:
    attempt = make_attempt()
    write(attempt, text)
    assert attempt.answer == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("381<turn|>", 381),
        (" **381**.<turn|>", 381),
        ("It is 381.<turn|>", None),
        ("-3<turn|>", None),
    ],
)
def test_a_bare_integer_answers_the_nudge(reply: str, answer: int | None) -> None:
    attempt = make_attempt()
    assert isinstance(write(attempt, "381<turn|>"), Feed)  # without the nudge it does not count
    assert write(attempt, reply) is None
    assert attempt.answer == answer


def test_an_attempt_without_a_box_says_why() -> None:
    attempt = make_attempt()
    write(attempt, "The answer is 381.<turn|>")
    write(attempt, "As I said.<turn|>")
    assert attempt.ending is Ending.NO_ANSWER
    assert "box" in attempt.detail
    assert attempt.detail.endswith(".")
    attempt = make_attempt()
    write(attempt, "So \\boxed{1234567}.<turn|>")
    write(attempt, "Yes.<turn|>")
    assert "1234567" in attempt.detail


def run_call(attempt: Attempt, text: str) -> None:
    assert isinstance(write(attempt, text), CallTools)
    attempt.await_results()
    attempt.on_results([CallRecord("1", "ok", "one")], 2.0)


def test_a_box_before_a_call_is_not_the_final_answer() -> None:
    attempt = make_attempt()
    run_call(attempt, "I guess \\boxed{1}, let me check. " + call("1"))
    assert isinstance(write(attempt, "It is another number.<turn|>"), Feed)  # asked for a box
    assert write(attempt, boxed(2)) is None
    assert attempt.answer == 2


def test_a_box_before_a_call_counts_if_no_other_follows() -> None:
    attempt = make_attempt()
    run_call(attempt, "I guess \\boxed{1}, let me check. " + call("1"))
    write(attempt, "That is right.<turn|>")
    assert write(attempt, "As I said.<turn|>") is None
    assert attempt.ending is Ending.ANSWERED
    assert attempt.answer == 1


def test_a_box_after_a_call_goes_before_earlier_ones_at_any_end() -> None:
    attempt = make_attempt()
    run_call(attempt, "I guess \\boxed{1}. " + call("1"))
    attempt.add_tokens(TOKENIZER.encode("So \\boxed{7}, and"), [0.1] * 17)
    attempt.end(Ending.TIME, 3.0)
    assert attempt.answer == 7


def test_ended_attempt_keeps_an_answer_that_it_has_boxed() -> None:
    attempt = make_attempt()
    attempt.add_tokens(TOKENIZER.encode("\\boxed{5} and so"), [])
    attempt.end(Ending.TIME, 3.0)
    assert attempt.answer == 5
    cancelled = make_attempt()
    cancelled.add_tokens(TOKENIZER.encode("\\boxed{5} and so"), [])
    cancelled.end(Ending.CONSENSUS, 3.0)
    assert cancelled.answer is None
    cancelled.check()


def test_seeds_differ_and_are_reproducible() -> None:
    seeds = {attempt_seed(run, key, i) for run in (0, 1) for key in ("a", "b") for i in range(8)}
    assert len(seeds) == 32
    assert attempt_seed(0, "a", 0) == attempt_seed(0, "a", 0)
    assert all(0 <= seed < 2**64 for seed in seeds)
