"""The routes of the server, and the objects that it answers with."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from .api_errors import ApiError, add_error_handlers
from .chat_prompts import ChatPrompts
from .generation import unix_time
from .model_service import Choice, Delta, ModelService
from .request_bodies import ChatBody, CompletionBody, GenerationBody
from .vote_service import VoteAnswer, VoteService, vote_usage

if TYPE_CHECKING:
    from ..solver import Solver

T = TypeVar("T")

OPEN_PATHS = ("/health",)
"""Paths that need no key."""


def create_app(solver: Solver, name: str, *, key: str | None = None, parallel: int = 1) -> FastAPI:
    """Return the application that serves a solver and its model.

    Args:
        solver: the solver; it stays the caller's to close.
        name: name of the model in requests.
        key: what clients must send as a bearer token; None asks for none.
        parallel: number of problems that the voting model solves at the same time.
    """
    routes = _Routes(ModelService(solver, name), VoteService(solver, parallel))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        routes.model.hub.attach()
        yield

    app = FastAPI(title="eightfold", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_handlers(app)

    @app.middleware("http")
    async def check_key(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response: Response
        if key is None or request.url.path in OPEN_PATHS or _has_key(request, key):
            response = await proceed(request)
        else:
            error = ApiError("The API key is missing or wrong.", 401, code="invalid_api_key")
            response = JSONResponse(error.body(), 401)
        routes.model.metrics.requests.labels(_known_path(request), response.status_code).inc()
        return response

    app.get("/health")(routes.health)
    app.get("/metrics")(routes.metrics)
    app.get("/v1/models")(routes.models)
    app.get("/v1/models/{model_id:path}")(routes.model_card)
    app.post("/v1/completions")(routes.completions)
    app.post("/v1/chat/completions")(routes.chat)
    return app


def _has_key(request: Request, key: str) -> bool:
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(sent.encode(), key.encode())


def _known_path(request: Request) -> str:
    """Return the path of a route; others share one name, so that clients cannot add any."""
    path = request.url.path
    known = ("/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions")
    return path if path in known else "other"


class _Routes:
    """What each path does."""

    def __init__(self, model: ModelService, votes: VoteService) -> None:
        self.model = model
        self.votes = votes
        self.prompts = ChatPrompts(model.tokenizer)

    async def health(self) -> Response:
        """Answer 200 while the engine runs, else 503."""
        alive = self.model.solver.alive
        return JSONResponse({"status": "ok" if alive else "engine ended"}, 200 if alive else 503)

    async def metrics(self) -> Response:
        """Return the figures for Prometheus."""
        return PlainTextResponse(self.model.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self) -> dict[str, Any]:
        """List the model, and the solver under the name with the suffix."""
        return {"object": "list", "data": [self._card(name) for name in self._names()]}

    async def model_card(self, model_id: str) -> dict[str, Any]:
        """Describe one of them."""
        self._check_name(model_id)
        return self._card(model_id)

    async def completions(self, body: CompletionBody, request: Request) -> Response:
        """Continue texts."""
        if body.model == self.model.vote_name:
            raise ApiError("The voting model answers at /v1/chat/completions only.", 400, "model")
        self._check_name(body.model)
        prompts = _prompt_ids(body, self.model)
        echoes = [self.model.tokenizer.decode(ids) if body.echo else "" for ids in prompts]
        head = _head("cmpl", "text_completion", body.model)
        deltas = self.model.answer(prompts, body, body.max_tokens)
        prompt_tokens = sum(map(len, prompts))
        if body.stream:
            return _event_stream(_completion_events(head, deltas, body, echoes, prompt_tokens))
        choices = await _unless_gone(request, _collect(deltas))
        texts = [
            {
                "index": one.index,
                "text": echoes[one.index // body.n] + one.content,
                "logprobs": None,
                "finish_reason": one.finish,
            }
            for one in choices
        ]
        return JSONResponse({**head, "choices": texts, "usage": _usage(prompt_tokens, choices)})

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """Answer a conversation, or solve the problem that it states."""
        if body.model == self.model.vote_name:
            return await self._vote(body, request)
        self._check_name(body.model)
        tools = body.tools if body.tools and body.tool_choice != "none" else []
        if tools and self.model.call_form is None:
            family = self.model.solver.protocol.family
            said = f"Calls of a model of the family {family} are not read back; leave tools out."
            raise ApiError(said, 400, "tools")
        prompt = self.prompts.encode(body.messages, tools)
        head = _head("chatcmpl", "chat.completion", body.model)
        deltas = self.model.answer([prompt], body, body.most_tokens, with_calls=bool(tools))
        if body.stream:
            return _event_stream(_chat_events(head, deltas, body, len(prompt)))
        choices = await _unless_gone(request, _collect(deltas))
        messages = [
            {
                "index": one.index,
                "message": _message(one),
                "logprobs": None,
                "finish_reason": one.finish,
            }
            for one in choices
        ]
        return JSONResponse({**head, "choices": messages, "usage": _usage(len(prompt), choices)})

    async def _vote(self, body: ChatBody, request: Request) -> Response:
        problem = self.votes.problem_of(body)
        head = _head("chatcmpl", "chat.completion", body.model)
        items = self.votes.solve(problem, body.seed)
        if body.stream:
            return _event_stream(_vote_events(head, items, body))
        answer = await _unless_gone(request, _last(items))
        assert isinstance(answer, VoteAnswer)
        message = {
            "role": "assistant",
            "content": answer.content,
            "reasoning_content": answer.reasoning,
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return JSONResponse({**head, "choices": [choice], "usage": vote_usage(answer.result)})

    def _names(self) -> tuple[str, str]:
        return self.model.name, self.model.vote_name

    def _check_name(self, name: str) -> None:
        names = self._names()
        if name not in names:
            said = f"There is no model {name[:100]!r} here, only {' and '.join(names)}."
            raise ApiError(said, 404, "model", "model_not_found")

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "eightfold"}


def _prompt_ids(body: CompletionBody, model: ModelService) -> list[list[int]]:
    """Return the token ids of a request's prompts."""
    prompt: Any = body.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    ids = [list(p) if not isinstance(p, str) else model.tokenizer.encode(p) for p in prompt]
    if not ids or not all(ids):
        raise ApiError("The prompt is empty; give a text.", 400, "prompt")
    return ids


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """Return the fields that an answer and all events of a stream share."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": unix_time(),
        "model": model,
    }


def _usage(prompt_tokens: int, choices: list[Choice]) -> dict[str, int]:
    completion = sum(one.tokens for one in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }


def _message(choice: Choice) -> dict[str, Any]:
    calls = _call_objects(choice)
    content = choice.content if choice.content or not calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content}
    return {**message, "tool_calls": calls} if calls else message


def _call_objects(choice: Choice) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(8)}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in choice.calls
    ]


async def _collect(deltas: AsyncIterator[Delta]) -> list[Choice]:
    """Return all choices of an answer, in order."""
    found = {delta.choice.index: delta.choice async for delta in deltas}
    return [found[index] for index in sorted(found)]


async def _last(items: AsyncIterator[T]) -> T:
    """Return the last item."""
    found = [item async for item in items]
    return found[-1]


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but end it as soon as the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError("The client has left.", 499)
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ---- streams


def _event_stream(events: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Return server-sent events; an error becomes the last of them."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in events:
                yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        except ApiError as error:
            yield f"data: {json.dumps(error.body(), ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def _completion_events(
    head: dict[str, Any],
    deltas: AsyncIterator[Delta],
    body: CompletionBody,
    echoes: list[str],
    prompt_tokens: int,
) -> AsyncIterator[dict[str, Any]]:
    choices: dict[int, Choice] = {}
    async for delta in deltas:
        one = delta.choice
        new = one.index not in choices
        choices[one.index] = one
        text = (echoes[one.index // body.n] if new else "") + delta.text
        choice = {
            "index": one.index, "text": text, "logprobs": None, "finish_reason": one.finish
        }  # fmt: skip
        yield {**head, "choices": [choice]}
    if body.usage_wanted:
        yield {**head, "choices": [], "usage": _usage(prompt_tokens, list(choices.values()))}


async def _chat_events(
    head: dict[str, Any], deltas: AsyncIterator[Delta], body: GenerationBody, prompt_tokens: int
) -> AsyncIterator[dict[str, Any]]:
    head = {**head, "object": "chat.completion.chunk"}
    for index in range(body.n):
        yield _chunk(head, {"role": "assistant", "content": ""}, index)
    choices: dict[int, Choice] = {}
    async for delta in deltas:
        one = choices[delta.choice.index] = delta.choice
        if delta.text:
            yield _chunk(head, {"content": delta.text}, one.index)
        if one.finish is not None:
            calls = [{"index": i, **call} for i, call in enumerate(_call_objects(one))]
            if calls:
                yield _chunk(head, {"tool_calls": calls}, one.index)
            yield _chunk(head, {}, one.index, one.finish)
    if body.usage_wanted:
        yield {**head, "choices": [], "usage": _usage(prompt_tokens, list(choices.values()))}


async def _vote_events(
    head: dict[str, Any], items: AsyncIterator[str | VoteAnswer], body: ChatBody
) -> AsyncIterator[dict[str, Any]]:
    head = {**head, "object": "chat.completion.chunk"}
    yield _chunk(head, {"role": "assistant", "content": ""})
    async for item in items:
        if isinstance(item, str):
            yield _chunk(head, {"reasoning_content": f"{item}\n"})
            continue
        yield _chunk(head, {"reasoning_content": item.reasoning})
        yield _chunk(head, {"content": item.content})
        usage = vote_usage(item.result)
        yield {**_chunk(head, {}, 0, "stop"), "usage": usage}
        if body.usage_wanted:
            yield {**head, "choices": [], "usage": usage}


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], index: int = 0, finish: str | None = None
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**head, "choices": [choice]}
