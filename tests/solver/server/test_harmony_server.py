"""A server with a tiny gpt-oss model: reasoning efforts, thoughts, calls and votes (15 s)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.solver_cases.server_process import ServerProcess

pytestmark = pytest.mark.slow

MODEL = Path(__file__).resolve().parents[2] / "data" / "tiny_gpt_oss"
INSTRUCTIONS = (
    "Solve the problem. The answer is an integer from 0 to 99999; take no remainder "
    "unless the problem asks for one. Use the python tool to compute."
)
ASKED: list[dict[str, Any]] = [
    {"role": "system", "content": INSTRUCTIONS},
    {"role": "user", "content": "What is the sum of the digits of $7^{123}$?"},
]
RUN_PYTHON = {
    "type": "function",
    "function": {
        "name": "python",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    process = ServerProcess("--model", str(MODEL), "--attempts", "2", "--reasoning-effort", "low")
    yield process.client()
    process.process.kill()
    process.process.wait()


def prompt_tokens(client: Any, **options: Any) -> int:
    done = client.chat.completions.create(model="m", messages=ASKED, max_tokens=1, **options)
    return int(done.usage.prompt_tokens)


def test_the_servers_effort_holds_for_requests_that_name_none(client: Any) -> None:
    efforts = ("low", "medium", "high")
    counts = {effort: prompt_tokens(client, reasoning_effort=effort) for effort in efforts}
    assert len(set(counts.values())) == 3, "the words differ in length"
    assert prompt_tokens(client) == counts["low"]
    named = {"chat_template_kwargs": {"reasoning_effort": "medium"}}
    assert prompt_tokens(client, extra_body=named) == counts["medium"]
    with pytest.raises(openai.BadRequestError, match="'low', 'medium' or 'high'"):
        prompt_tokens(client, reasoning_effort="extreme")


def test_a_call_is_read_back_whole_and_in_a_stream(client: Any) -> None:
    settings = {"model": "m", "messages": ASKED, "tools": [RUN_PYTHON], "temperature": 0}
    whole = client.chat.completions.create(**settings, max_tokens=120).choices[0]
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls
    assert call.function.name == "python"
    assert list(json.loads(call.function.arguments)) == ["code"]
    stream = client.chat.completions.create(**settings, max_tokens=120, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    (streamed,) = [one for delta in deltas for one in delta.tool_calls or []]
    assert streamed.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "<|end|>469<|return|>"}
    follow = [*ASKED, whole.message.model_dump(exclude_none=True), result]
    assert client.chat.completions.create(model="m", messages=follow, max_tokens=20).choices


def test_the_voting_model_answers_right(client: Any) -> None:
    asked = ASKED[1:]
    done = client.chat.completions.create(model="m:vote2", messages=asked)
    assert "\\boxed{469}" in done.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="the server's own options hold"):
        client.chat.completions.create(model="m:vote2", messages=asked, reasoning_effort="low")
