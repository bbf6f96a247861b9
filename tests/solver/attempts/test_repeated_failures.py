"""Attempts that only repeat calls which have failed before (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.scripted_engine import TOKENIZER, boxed, call

from eightfold.solver.attempts.attempt import Attempt, AttemptLimits, CallTools, Ending, Feed
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.attempts.calls.repeated_failures import MAX_REPETITIONS, RepeatedFailures
from eightfold.solver.chat import load_protocol


def failed(code: str | None, error: str = "NameError", text: str = "Error") -> CallRecord:
    return CallRecord(code, "malformed" if code is None else "error", text, 0.0, error)


def worked(code: str) -> CallRecord:
    return CallRecord(code, "ok", "1")


@pytest.mark.parametrize(
    "records",
    [
        [failed("f(1)")] * 4,
        [failed(None, "malformed", "there is no tool f")] * 4,
        [failed("f(1)", text=f"at 0x{n}") for n in range(4)],
        [failed(f"f(1){' ' * n}") for n in range(4)],
        [failed("f(1)"), failed("g(1)")] * 2 + [failed("f(1)")],
        [worked("x = 1"), *[failed("f(1)")] * 4],
        [CallRecord("sleep(9)", "timeout", "...", 6.0, "timeout")] * 4,
    ],
)
def test_repetitions_are_recognized(records: list[CallRecord]) -> None:
    failures = RepeatedFailures("{count} times")
    for record in records:
        assert not failures.hopeless
        failures.add(record)
    assert failures.hopeless


@pytest.mark.parametrize(
    "records",
    [
        [failed(f"f({n})") for n in range(20)],
        [failed("f(1)", error) for error in ("NameError", "TypeError", "ValueError", "KeyError")],
        [failed("f(1)"), worked("x = 1")] * 9,
        [worked("x = 1")] * 20,
        [failed(None, "malformed", f"there is no tool {n}") for n in "abcdefg"],
    ],
)
def test_other_failures_are_not(records: list[CallRecord]) -> None:
    failures = RepeatedFailures("{count} times")
    for record in records:
        failures.add(record)
        assert not failures.hopeless


def test_the_model_is_told_how_often_the_call_has_failed() -> None:
    failures = RepeatedFailures("This failed {count} times.")
    first, second, third = (failures.add(failed("f(1)", text="NameError: f\n")) for _ in range(3))
    assert first.text == "NameError: f\n"
    assert second.text == "NameError: f\nThis failed 2 times."
    assert third.text.endswith("This failed 3 times.")
    assert RepeatedFailures("").add(failed("f(1)")).text == "Error"


def test_an_attempt_that_repeats_itself_ends() -> None:
    protocol = load_protocol(TOKENIZER)
    attempt = Attempt(0, 1, protocol, AttemptLimits())

    def write(text: str) -> object:
        ids = TOKENIZER.encode(text)
        attempt.add_tokens(ids, [0.1] * len(ids))
        return attempt.on_pause(1.0)

    assert isinstance(write("First \\boxed{7}. " + call("f(1)")), CallTools)
    for number in range(MAX_REPETITIONS):
        attempt.await_results()
        fed = attempt.on_results([failed("f(1)")], 1.0)
        assert isinstance(fed, Feed)
        told = f"failed {number + 1} times in the same way"
        assert (told in TOKENIZER.decode(fed.ids)) == (number > 0)
        assert isinstance(write(call("f(1)")), CallTools)
    attempt.await_results()
    assert attempt.on_results([failed("f(1)")], 2.0) is None
    attempt.check()
    assert attempt.ending is Ending.REPEATED
    assert attempt.detail == "Error"
    assert attempt.answer == 7  # written before the calls, and nothing came after them
    assert [one.status for one in attempt.calls] == ["error"] * (MAX_REPETITIONS + 1)


def test_an_attempt_that_takes_the_hint_goes_on() -> None:
    attempt = Attempt(0, 1, load_protocol(TOKENIZER), AttemptLimits())
    for outcome in (failed("f(1)"), failed("f(1)"), worked("2"), failed("f(1)"), failed("f(1)")):
        ids = TOKENIZER.encode(call("f(1)"))
        attempt.add_tokens(ids, [0.1] * len(ids))
        assert isinstance(attempt.on_pause(1.0), CallTools)
        attempt.await_results()
        assert isinstance(attempt.on_results([outcome], 1.0), Feed)
    ids = TOKENIZER.encode(boxed(42))
    attempt.add_tokens(ids, [0.1] * len(ids))
    assert attempt.on_pause(1.0) is None
    assert attempt.ending is Ending.ANSWERED
