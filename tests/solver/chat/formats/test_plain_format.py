"""Conversations without a tool, for checkpoints of every family (2 s)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.solver_cases.chat_tokenizers import FAMILIES, gemma
from helpers.solver_cases.scripted_engine import ScriptedEngine, ScriptedPool, scripted_solver
from transformers import PreTrainedTokenizerFast

from eightfold.solver.chat import load_protocol
from eightfold.solver.chat.formats.plain_format import PlainFormat
from eightfold.solver.chat.prompt_texts import Prompts

FENCE = "```python\nprint(6 * 7)\n```\n"


def plain(tokenizer: PreTrainedTokenizerFast) -> PlainFormat:
    end_ids = sorted(load_protocol(tokenizer).end_ids)
    return PlainFormat(tokenizer, Prompts(), end_ids)


@pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)
def test_no_family_is_told_of_a_tool(build: Callable[[], PreTrainedTokenizerFast]) -> None:
    protocol = plain(build())
    prompt = protocol.decode(protocol.render_prompt("What is 6 times 7?"))
    assert Prompts().plain in prompt
    assert "What is 6 times 7?" in prompt
    assert "python" not in prompt.lower()
    assert Prompts().nudge in protocol.decode(protocol.nudge())
    assert set(protocol.pause_token_ids) == protocol.end_ids


@pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)
def test_code_is_text(build: Callable[[], PreTrainedTokenizerFast]) -> None:
    protocol = plain(build())
    assert load_protocol(build()).parse_calls(FENCE)
    assert protocol.parse_calls(FENCE) == []
    assert protocol.code_end(FENCE) is None
    assert protocol.final_text(FENCE + "so \\boxed{42}").endswith("so \\boxed{42}")


def test_model_waits_for_no_result() -> None:
    assert load_protocol(gemma()).call_id is not None
    assert plain(gemma()).call_id is None


def test_solver_without_a_tool_runs_nothing() -> None:
    engine = ScriptedEngine(
        [[FENCE + "so \\boxed{42}<turn|>"], [FENCE + "<turn|>", "\\boxed{7}<turn|>"]]
    )
    pool = ScriptedPool()
    with scripted_solver(engine, pool, attempts=2, early_stop=0, tool=False) as solver:
        result = solver.solve("What is 6 times 7?")
    assert sorted(result.votes) == [7, 42]
    assert result.calls == 0
    assert pool.ran == []
    assert [record["nudged"] for record in result.attempts] == [False, True]


def test_requests_for_code_are_left_out() -> None:
    prompts = Prompts(request="Write a program.", opening="```python\n")
    protocol = PlainFormat(gemma(), prompts, sorted(load_protocol(gemma()).end_ids))
    assert protocol.render_prompt("Add.") == plain(gemma()).render_prompt("Add.")
    assert protocol.prompt_opener == plain(gemma()).prompt_opener
