"""The server in a process of its own, asked by the official client (45 s)."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest
import torch
from helpers.free_ports import free_port
from helpers.solver_cases.server_process import KEY, ServerProcess
from transformers import AutoModelForCausalLM, AutoTokenizer

from eightfold.solver.model_defaults import resolve_model_folder

pytestmark = pytest.mark.slow
PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"
ASKED: list[dict[str, Any]] = [{"role": "user", "content": PROBLEM}]
RUN_PYTHON = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Run Python.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess("--kernels", "8", "--time", "60")
    yield process
    process.process.kill()
    process.process.wait()


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Any:
    return server.client()


def test_models_are_listed_and_unknown_ones_refused(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["m", "m:vote8"]
    assert client.models.retrieve("m:vote8").id == "m:vote8"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt", messages=ASKED)
    assert caught.value.body["code"] == "model_not_found"  # type: ignore[index]
    assert "only m and m:vote8" in caught.value.message


def test_greedy_answers_are_those_of_generate(client: Any) -> None:
    folder = resolve_model_folder(None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(PROBLEM, return_tensors="pt").input_ids
    expected = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    answer = client.completions.create(model="m", prompt=PROBLEM, max_tokens=24, temperature=0)
    text = tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert answer.choices[0].text == text
    assert answer.usage.prompt_tokens == ids.shape[1]
    for prompt in ([PROBLEM, PROBLEM], [ids[0].tolist()] * 2, ids[0].tolist()):
        echoed = client.completions.create(
            model="m", prompt=prompt, max_tokens=24, temperature=0, echo=True
        ).choices
        assert len(echoed) == (1 if prompt == ids[0].tolist() else 2)
        assert all(PROBLEM in one.text and one.text.endswith(text) for one in echoed)


def test_a_stream_holds_the_same_choices(client: Any) -> None:
    options = {"model": "m", "messages": ASKED, "n": 3, "seed": 7, "max_tokens": 20}
    whole = client.chat.completions.create(**options)
    texts, ends, usage = ["", "", ""], ["", "", ""], None
    for event in client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert len(set(texts)) > 1
    assert usage == whole.usage


def test_a_stop_text_ends_the_answer_in_front_of_it(client: Any) -> None:
    options = {"model": "m", "messages": ASKED, "temperature": 0}
    whole = client.chat.completions.create(**options, max_tokens=30).choices[0].message.content
    stop = whole[8:11]
    cut = client.chat.completions.create(**options, stop=[stop, "never"], max_tokens=30)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_an_answer_goes_on_behind_its_end_if_it_is_told_to(client: Any) -> None:
    options = {"model": "m", "messages": ASKED, "temperature": 0, "max_tokens": 300}
    whole = client.chat.completions.create(**options)
    assert whole.usage.completion_tokens < 300
    longer = client.chat.completions.create(**options, extra_body={"ignore_eos": True})
    assert longer.usage.completion_tokens == 300
    assert longer.choices[0].finish_reason == "length"


def test_calls_of_given_tools_are_read_back(client: Any) -> None:
    answer = client.chat.completions.create(
        model="m", messages=ASKED, tools=[RUN_PYTHON], temperature=0, max_tokens=200
    ).choices[0]
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls
    assert call.function.name == "python"
    assert len(call.id) == 9  # as Mistral's templates want it
    assert "66" in json.loads(call.function.arguments)["code"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "23"}
    messages = [*ASKED, answer.message.model_dump(exclude_none=True), result]
    final = client.chat.completions.create(
        model="m", messages=messages, tools=[RUN_PYTHON], temperature=0, max_tokens=60
    )
    said = final.choices[0].message
    assert "23" in f"{getattr(said, 'reasoning_content', '')}{said.content}"
    streamed = ""
    for event in client.chat.completions.create(
        model="m", messages=ASKED, tools=[RUN_PYTHON], temperature=0, max_tokens=200, stream=True
    ):
        for one in event.choices[0].delta.tool_calls or []:
            streamed += one.function.arguments
    assert streamed == call.function.arguments


def test_a_tool_may_have_no_parameters(client: Any) -> None:
    tool = {"type": "function", "function": {"name": "now"}}
    answer = client.chat.completions.create(model="m", messages=ASKED, tools=[tool], max_tokens=1)
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"logprobs": True}, "logprobs is not supported here, because the sampler draws"),
        ({"n": 0}, "n: "),
        ({"stop": 5}, "a text or a list of texts"),
        ({"logprobs": 0}, "logprobs is not supported"),
        ({"extra_body": {"top_k": 10**20}}, "top_k: "),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content must be a text"),
        ({"tools": [{"type": "function"}]}, "no object function with a name"),
        ({"tools": [{"function": {"name": "f", "parameters": "x"}}]}, "no JSON schema"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": True}}}, "tokenize is no variable"),
        ({"reasoning_effort": "low"}, "knows no reasoning_effort"),
        ({"messages": [{"role": "user", "content": "x " * 20_000}]}, "may hold at most"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": "f"}]}]},
            "without the object function",
        ),
        ({"model": "m:vote8", "max_tokens": 5, "n": 2}, "does not take max_tokens or n, because"),
        ({"model": "m:vote8", "messages": ASKED * 2}, "one user message"),
    ],
)
def test_bad_requests_get_an_error_in_the_protocols_form(
    client: Any, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "m", "messages": ASKED, **change})
    body: Any = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert said in body["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{not", "application/json", 400, "is not JSON"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"model": "\xe9"}', "application/json", 400, "not UTF-8"),
        (b'{"model": "m", "prompt": "1"}', "text/plain", 400, "Content-Type: application/json"),
        (b" " * (33 << 20), "application/json", 413, "larger than 32 MiB"),
        (b'{"model": "\\ud800", "prompt": "1"}', "application/json", 404, "There is no model '?'"),
        (b'{"\\ud800": 1}', "application/json", 400, "model: Field required"),
        (
            b'{"model": "m", "prompt": ' + b"[" * 500 + b"]" * 500 + b"}",
            *("application/json", 400, "nested too deeply"),
        ),
    ],
)
def test_bodies_that_cannot_be_read_get_an_error_in_the_protocols_form(
    server: ServerProcess, body: bytes, kind: str, status: int, said: str
) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    request = urllib.request.Request(f"{server.url}/completions", body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == status
    assert said in json.load(caught.value)["error"]["message"]


@pytest.mark.parametrize("token", [-1, 10**6, 2**40, 10**30])
def test_token_ids_outside_the_vocabulary_are_refused(client: Any, token: int) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="m", prompt=[5, token], max_tokens=2, echo=True)
    assert "is not in the vocabulary" in str(caught.value)


def test_halves_of_surrogate_pairs_are_taken_as_question_marks(server: ServerProcess) -> None:
    def post(path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        content = json.dumps({"model": "m", "max_tokens": 2, "seed": 1, **body}).encode()
        request = urllib.request.Request(f"{server.url}/{path}", content, headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    half = "\ud800"
    texts = [
        post("completions", prompt=one, echo=True)["choices"][0]["text"]
        for one in (f"1 {half}", "1 ?")
    ]
    assert texts[0] == texts[1]
    function = {"name": half, "arguments": json.dumps({half: half})}
    call = {"id": half, "type": "function", "function": function}
    messages = [
        *({"role": "user", "content": half}, {"role": "assistant", "tool_calls": [call]}),
        {"role": "tool", "tool_call_id": half, "content": half},
    ]
    tools = [{"type": "function", "function": {"name": half, "description": half}}]
    reply = post("chat/completions", messages=messages, tools=tools)
    assert reply["usage"]["completion_tokens"] > 0


def test_a_wrong_key_is_refused(server: ServerProcess) -> None:
    stranger = openai.OpenAI(base_url=server.url, api_key="another", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_many_clients_are_served_at_once(client: Any) -> None:
    def ask(seed: int) -> str:
        answer = client.chat.completions.create(
            model="m", messages=ASKED, seed=seed % 8, max_tokens=6
        )
        return str(answer.choices[0].message.content)

    with ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(ask, range(64)))
    assert texts[:8] * 8 == texts


def test_a_client_that_leaves_is_cancelled(server: ServerProcess, client: Any) -> None:
    before = server.metric("eightfold_engine_cancelled_total")
    stream = client.completions.create(
        model="m", prompt="1 2 3", max_tokens=4000, stream=True, n=2, seed=1
    )
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(
            model="m", prompt="1 2 3", max_tokens=4000, n=32, seed=1
        )
    deadline = time.monotonic() + 30
    while server.metric("eightfold_requests_running") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.metric("eightfold_requests_running") == 0
    assert server.metric("eightfold_engine_cancelled_total") > before


def test_the_voting_model_solves_a_problem(client: Any) -> None:
    answer = client.chat.completions.create(model="m:vote8", messages=ASKED, seed=1)
    assert "\\boxed{23}" in answer.choices[0].message.content
    told = answer.choices[0].message.content + answer.choices[0].message.reasoning_content
    assert not re.search(r"<\|?\w+\|?>", told), "markup of the chat format"
    assert "```python\n" in told
    assert answer.usage.votes["23"] >= 1
    assert answer.usage.completion_tokens > 0
    content, reasoning = "", ""
    for event in client.chat.completions.create(
        model="m:vote8", messages=ASKED, seed=1, stream=True
    ):
        content += event.choices[0].delta.content or ""
        reasoning += getattr(event.choices[0].delta, "reasoning_content", None) or ""
    assert "\\boxed{23}" in content
    assert "votes: 23" in reasoning


def test_a_killed_server_is_replaced_on_its_port_and_ends_when_told() -> None:
    first = ServerProcess("--kernels", "1", port=free_port())
    first.process.kill()
    first.process.wait()
    second = ServerProcess("--kernels", "1", port=first.port)
    assert second.port == first.port
    answer = second.client().completions.create(model="m", prompt="1 2", max_tokens=2)
    assert answer.usage.completion_tokens <= 2
    code, said = second.end(signal.SIGINT)
    assert (code, said) == (0, "ending\n")
    assert KEY not in second.said


def test_the_server_ends_with_its_http_process(server: ServerProcess) -> None:
    children = psutil.Process(server.process.pid).children()
    (child,) = [one for one in children if any("http_main" in word for word in one.cmdline())]
    child.kill()
    code, said = server.end(signal.SIGCONT)
    assert code == 3
    assert "The HTTP process ended with code -9" in said
