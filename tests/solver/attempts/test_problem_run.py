"""All attempts at a problem together: calls, votes, early stops, limits (4 s)."""

from __future__ import annotations

import pytest
from helpers.solver_cases.scripted_engine import (
    TOKENIZER,
    ScriptedEngine,
    boxed,
    call,
    endings,
    solve,
)


def test_vote_of_tool_using_attempts() -> None:
    result, engine, pool = solve([[call("6*7"), boxed(42)], [boxed(41)], [call("x"), boxed(42)]])
    assert result.answer == 42
    assert result.votes == {42: 2, 41: 1}
    assert sorted(pool.ran) == ["6*7", "x"]
    assert '<|"|>out 6*7<|"|>' in engine.resumed[0][0]
    assert endings(result) == ["answered"] * 3
    assert result.stopped == "all ended"
    assert result.tokens == sum(record["tokens"] for record in result.attempts) > 0
    turn = result.attempts[0]["turns"][0]
    assert turn["calls"][0]["output"] == "out 6*7"
    assert turn["text"].endswith("<|tool_response>")
    assert turn["appended"] == TOKENIZER.encode(engine.resumed[0][0])


def test_prompt_is_submitted_once_and_forked() -> None:
    engine = ScriptedEngine([[boxed(1)]] * 4)
    submitted = []
    original = engine.submit
    engine.submit = lambda ids, params: submitted.append(ids) or original(ids, params)  # type: ignore
    result, _, _ = solve([[boxed(1)]] * 4, engine)
    assert len(submitted) == 1
    assert list(result.prompt) == submitted[0]
    assert "from 0 to 99999" in TOKENIZER.decode(submitted[0])


def test_agreement_cancels_the_other_attempts_within_one_step() -> None:
    engine = ScriptedEngine([[boxed(7)], [boxed(7)], ["long " * 10_000]])
    cancelled_at = []
    original = engine.cancel
    engine.cancel = lambda seq: cancelled_at.append(engine.steps) or original(seq)  # type: ignore
    result, _, _ = solve([[]] * 3, engine, early_stop=2)
    assert result.answer == 7
    assert result.stopped == "agreement"
    assert endings(result)[2] == "cancelled by consensus"
    steps_to_agree = -(-len(TOKENIZER.encode(boxed(7))) // engine.per_step)
    assert max(cancelled_at) == steps_to_agree


def test_uncatchable_lead_stops_the_problem_too() -> None:
    scripts = [[boxed(7)], [boxed(7)], [boxed(7)], [boxed(8)], ["long " * 10_000]]
    result, _, _ = solve(scripts, early_stop=4)
    assert result.stopped == "lead"
    assert result.answer == 7


def test_without_early_stop_every_attempt_is_awaited() -> None:
    result, _, _ = solve([[boxed(7)]] * 5, early_stop=0)
    assert endings(result) == ["answered"] * 5


def test_agreement_interrupts_a_running_cell() -> None:
    scripts = [[call("hang"), boxed(1)], ["slow " * 30 + boxed(7)], ["slow " * 30 + boxed(7)]]
    # `solve` waits only a few seconds for the kernels, and checks that they were given back.
    result, _, _ = solve(scripts, early_stop=2, tool_timeout=600.0)
    assert endings(result)[0] == "cancelled by consensus"
    assert result.answer == 7


def test_time_limit_ends_sequences_and_cells() -> None:
    scripts = [["x" * 1_000_000], [call("hang")], [boxed(3)]]
    result, _, _ = solve(scripts, time=2.0, early_stop=0, tool_timeout=600.0)
    assert endings(result) == ["time", "time", "answered"]
    assert result.answer == 3
    assert result.stopped == "time"


def test_malformed_calls_are_answered_with_an_error() -> None:
    bad = "<|tool_call>call:python{code:1}<tool_call|><|tool_response>"
    result, engine, pool = solve([[bad, "<|tool_response>", boxed(2)]])
    assert result.answer == 2
    assert "ToolError: python takes one string argument named code" in engine.resumed[0][0]
    assert "ToolError: there was no call before the response" in engine.resumed[0][1]
    assert pool.most == 0
    assert result.attempts[0]["error_kinds"] == ["malformed", "malformed"]
    assert (result.calls, result.errors) == (2, 2)


def test_calls_of_one_turn_share_a_kernel_and_run_in_order() -> None:
    result, engine, pool = solve([[call("a", "error", "b"), boxed(2)]])
    assert pool.ran == ["a", "error", "b"]
    assert pool.most == 1
    text = engine.resumed[0][0]
    assert text.index("out a") < text.index("ZeroDivisionError") < text.index("out b")
    assert result.attempts[0]["error_kinds"] == ["ZeroDivisionError"]


def test_tool_result_replaces_an_end_token_after_a_call() -> None:
    ended = call("a").replace("<|tool_response>", "<turn|>")
    result, engine, _ = solve([[ended, boxed(2)]])
    assert result.answer == 2
    grown = TOKENIZER.decode(engine.sequences[0].tokens)
    assert "<tool_call|><|tool_response>response:python{value:" in grown
    assert "<tool_call|><turn|>" not in grown


INVENTED = (
    "Let us compute.\n```python\nprint(6 * 7)\n```\n"
    "```output\n87654\n```\nSo \\boxed{87654}.<turn|>"
)


@pytest.mark.parametrize("per_step", [1, 2, 7, 1000])
def test_an_output_that_the_model_invents_is_replaced_by_the_real_one(per_step: int) -> None:
    result, engine, pool = solve([[INVENTED, boxed(42)]], per_step=per_step)
    written = TOKENIZER.decode(engine.sequences[0].tokens)
    assert pool.ran == ["print(6 * 7)\n"]
    assert result.answer == 42
    assert "87654" not in written
    assert "print(6 * 7)\n```\n```output\nout print(6 * 7)" in written.replace("\n\n", "\n")
    turns = result.attempts[0]["turns"]
    assert turns[0]["stopped"]
    assert turns[0]["text"].rstrip().endswith("print(6 * 7)\n```")
    assert 0 <= turns[0]["rewound"] <= per_step
    assert result.tokens == sum(len(turn["tokens"]) + turn["rewound"] for turn in turns)


def test_traces_do_not_depend_on_how_many_tokens_a_step_brings() -> None:
    """As with drafts: code that ends among right drafts ends the turn there."""
    found = []
    for per_step in (1, 2, 5, 9):
        result, engine, _ = solve([[INVENTED, call("b"), boxed(42)]], per_step=per_step)
        turns = result.attempts[0]["turns"]
        kept = [
            {k: turn[k] for k in ("tokens", "stopped", "rewound", "appended")} for turn in turns
        ]
        found.append((kept, engine.sequences[0].tokens, result.answer))
    assert found[1:] == found[:1] * 3


def test_several_blocks_are_run_one_after_another() -> None:
    texts = [f"```python\nprint({i})\n```\n```output\n" for i in range(3)]
    result, _, pool = solve([[*texts, boxed(5)]], per_step=1)
    assert pool.ran == [f"print({i})\n" for i in range(3)]
    assert result.answer == 5
    assert result.calls == 3


def test_code_that_is_stopped_counts_as_a_turn() -> None:
    texts = ["```python\nprint(1)\n```\n"] * 5
    result, _, pool = solve([texts], turns=2, per_step=1)
    assert endings(result) == ["turns used up"]
    assert len(pool.ran) == 2


def test_number_of_turns_is_limited() -> None:
    result, _, pool = solve([[call("a")] * 10], turns=3)
    assert endings(result) == ["turns used up"]
    assert pool.ran == ["a"] * 3
    assert result.answer is None
    assert solve([[call("a"), boxed(1)]], turns=0)[0].answer is None


def test_context_may_be_filled_by_tokens_or_by_tool_output() -> None:
    engine = ScriptedEngine([["x" * 10_000], [call("a"), boxed(1)]])
    engine.max_context = 1200
    result, _, _ = solve([[]] * 2, engine)
    assert endings(result)[0] == "context full"
    long = call("y" * 700)
    engine = ScriptedEngine([[long, boxed(1)]])
    engine.max_context = len(result.prompt) + len(TOKENIZER.encode(long)) + 500
    result, _, _ = solve([[]], engine)
    assert endings(result) == ["context full"]
    assert result.attempts[0]["detail"] == "no room"
