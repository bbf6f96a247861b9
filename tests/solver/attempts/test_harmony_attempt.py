"""Attempts of a gpt-oss model: replies, requests for an answer, drafts (1 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.chat_tokenizers import harmony

from eightfold.solver.attempts.attempt import (
    Attempt,
    AttemptLimits,
    CallTools,
    Ending,
    Feed,
)
from eightfold.solver.attempts.calls.call_record import CallRecord
from eightfold.solver.chat import load_protocol
from eightfold.solver.chat.prompt_texts import Prompts

PROTOCOL = load_protocol(harmony(), Prompts())
THOUGHT = "<|channel|>analysis<|message|>"
CALL = "<|channel|>analysis to=python code<|message|>print(1)<|call|>"
FINAL = "<|channel|>final<|message|>"


def make_attempt() -> Attempt:
    return Attempt(0, 1, PROTOCOL, AttemptLimits())


def write(attempt: Attempt, text: str) -> CallTools | Feed | None:
    """Let the model write a turn, token by token, as far as the attempt lets it."""
    for index in PROTOCOL._encode(text):
        attempt.add_tokens([index], [])
        paused = index in PROTOCOL.pause_token_ids
        action = attempt.stop_at_code(1.0, 1, paused)
        if paused and action is None and not attempt.over:
            return attempt.on_pause(1.0)
        if action is not None:
            return action
    attempt.check()
    return None


def answer_call(attempt: Attempt, text: str = "1") -> str:
    attempt.await_results()
    fed = attempt.on_results([CallRecord("print(1)", "ok", text)], 2.0)
    assert isinstance(fed, Feed)
    attempt.check()
    return PROTOCOL.decode(fed.ids)


def test_a_thought_a_call_and_an_answer() -> None:
    attempt = make_attempt()
    action = write(attempt, f"{THOUGHT}Hm.<|end|><|start|>assistant{CALL}")
    assert isinstance(action, CallTools)
    assert answer_call(attempt).startswith("<|start|>python to=assistant<|channel|>analysis")
    assert write(attempt, f"{FINAL}It is \\boxed{{1}}.<|return|>") is None
    assert (attempt.ending, attempt.answer) == (Ending.ANSWERED, 1)
    assert not any(turn.contents.notes for turn in attempt.turns)


def test_a_bare_integer_answers_the_request() -> None:
    attempt = make_attempt()
    asked = write(attempt, f"{THOUGHT}Hm.<|end|><|start|>assistant{FINAL}41754<|return|>")
    assert isinstance(asked, Feed)
    assert asked.drop_last
    assert PROTOCOL.decode(asked.ids).startswith("<|end|><|start|>user<|message|>Give only")
    thought = f"{THOUGHT}In a box.<|end|><|start|>assistant"
    assert write(attempt, f"{thought}{FINAL}41754<|return|>") is None
    assert (attempt.ending, attempt.answer) == (Ending.ANSWERED, 41754)


@pytest.mark.parametrize("reason", ["context", "length"])
def test_a_thought_that_never_ends_gives_its_last_draft(reason: str) -> None:
    attempt = make_attempt()
    assert write(attempt, f"{THOUGHT}Perhaps \\boxed{{3}}. No: \\boxed{{7}}, because") is None
    attempt.on_finish(reason, 2.0)
    assert attempt.answer == 7


def test_a_draft_neither_ends_an_attempt_nor_counts_beside_an_answer() -> None:
    attempt = make_attempt()
    turn = f"{THOUGHT}Perhaps \\boxed{{3}}.<|end|><|start|>assistant{CALL}"
    assert isinstance(write(attempt, turn), CallTools)
    answer_call(attempt)
    assert write(attempt, f"{FINAL}It is \\boxed{{4}}.<|return|>") is None
    assert (attempt.ending, attempt.answer) == (Ending.ANSWERED, 4)


def test_a_draft_counts_if_the_request_is_not_heeded() -> None:
    attempt = make_attempt()
    assert isinstance(write(attempt, f"{THOUGHT}So \\boxed{{3}}.<|return|>"), Feed)
    assert write(attempt, f"{FINAL}As I said.<|return|>") is None
    assert (attempt.ending, attempt.answer) == (Ending.ANSWERED, 3)


def test_no_draft_of_a_cancelled_attempt_counts() -> None:
    attempt = make_attempt()
    write(attempt, f"{THOUGHT}So \\boxed{{3}}.")
    attempt.end(Ending.CONSENSUS, 2.0)
    assert attempt.answer is None


def test_an_invented_result_is_taken_back() -> None:
    attempt = make_attempt()
    invented = "<|end|><|start|>python to=assistant<|channel|>analysis<|message|>"
    action = write(attempt, CALL.replace("<|call|>", invented) + "9")
    assert isinstance(action, CallTools)
    assert action.rewind == len(PROTOCOL._encode(invented))
    assert answer_call(attempt).startswith("<|call|><|start|>python to=assistant")
    assert PROTOCOL.decode(attempt.turns[0].tokens) == CALL.removesuffix("<|call|>")
    assert attempt.turns[0].contents.notes


def test_code_in_the_final_text_is_run_in_its_place() -> None:
    attempt = make_attempt()
    action = write(attempt, f"{FINAL}Run:\n```python\nprint(1)\n```\n```output\n9\n```")
    assert isinstance(action, CallTools)
    assert answer_call(attempt).strip() == "```output\n1\n```"
    assert write(attempt, "So \\boxed{1}.<|return|>") is None
    assert (attempt.ending, attempt.answer) == (Ending.ANSWERED, 1)
