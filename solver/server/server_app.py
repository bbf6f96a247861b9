"""The routes of the server, and the objects that it answers with."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from .api_errors import ApiError, add_error_handlers
from .event_stream import EventStream, EventWriter, last_item, unless_gone
from .link.engine_clients import EngineClients
from .link.messages import Setup, Solved
from .model_service import Answer, Choice, ModelService
from .replies.reply_parts import ReplyParts
from .request_bodies import ChatBody, CompletionBody, GenerationBody
from .request_gate import RequestGate
from .vote_service import VoteService

CHUNK = "chat.completion.chunk"


def create_app(setup: Setup, engines: EngineClients) -> FastAPI:
    """Return the application that serves a solver and its model.

    Args:
        setup: what is served.
        engines: the connections to the engines.
    """
    routes = _Routes(ModelService(setup, engines), VoteService(engines, setup.parallel))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engines.attach()
        yield

    app = FastAPI(title="eightfold", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_handlers(app)
    app.add_middleware(RequestGate, key=setup.key, metrics=routes.model.metrics)
    app.get("/health")(routes.health)
    app.get("/metrics")(routes.metrics)
    app.get("/v1/models")(routes.models)
    app.get("/v1/models/{model_id:path}")(routes.model_card)
    app.post("/v1/completions")(routes.completions)
    app.post("/v1/chat/completions")(routes.chat)
    return app


class _Routes:
    """What each path does."""

    def __init__(self, model: ModelService, votes: VoteService) -> None:
        self.model = model
        self.votes = votes

    async def health(self) -> Response:
        """Answer 200 while an engine runs, else 503."""
        engines = self.model.engines
        return JSONResponse(
            {"status": " ".join(engines.ended) or "ok"}, 200 if engines.alive else 503
        )

    async def metrics(self) -> Response:
        """Return the figures for Prometheus, without those of engines that have ended."""
        engines = self.model.engines
        text = self.model.metrics.text(engines.running, await engines.stats())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def models(self) -> dict[str, Any]:
        """List the model, and the solver under the name with the suffix."""
        return {"object": "list", "data": [self._card(name) for name in self._names()]}

    async def model_card(self, model_id: str) -> dict[str, Any]:
        """Describe one of them."""
        self._check_name(model_id)
        return self._card(model_id)

    async def completions(self, body: CompletionBody, request: Request) -> Response:
        """Continue texts."""
        if body.model == self.model.setup.vote_name:
            raise ApiError("The voting model answers at /v1/chat/completions only.", 400, "model")
        self._check_name(body.model)
        prompts = _prompt_ids(body, self.model)
        head = _head("cmpl", "text_completion", body.model)
        answer = self.model.complete(prompts, body)
        await answer.start()  # refuses ids that the tokenizer could not decode
        echoes = [self.model.tokenizer.decode(ids) if body.echo else "" for ids in prompts]
        echoes = [echo for echo in echoes for _ in range(body.n)]
        if body.stream:
            events = _completion_events(EventWriter(head), answer, body, echoes)
            return EventStream(events, answer.close)
        choices = await _whole(request, answer)
        texts = [
            _text_choice(one, echo + one.parts.content)
            for one, echo in zip(choices, echoes, strict=True)
        ]
        return JSONResponse({**head, "choices": texts, "usage": answer.usage})

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """Answer a conversation, or solve the problem that it states."""
        if body.model == self.model.setup.vote_name:
            return await self._vote(body, request)
        self._check_name(body.model)
        head = _head("chatcmpl", CHUNK if body.stream else "chat.completion", body.model)
        answer = self.model.converse(body)
        await answer.start()
        if body.stream:
            return EventStream(_chat_events(EventWriter(head), answer, body), answer.close)
        choices = await _whole(request, answer)
        messages = [_message_choice(one.index, _message(one.parts), one.finish) for one in choices]
        return JSONResponse({**head, "choices": messages, "usage": answer.usage})

    async def _vote(self, body: ChatBody, request: Request) -> Response:
        items = self.votes.solve(self.votes.problem_of(body), body.seed)
        head = _head("chatcmpl", CHUNK if body.stream else "chat.completion", body.model)
        if body.stream:
            return EventStream(_vote_events(EventWriter(head), items, body))
        solved = await unless_gone(request.receive, last_item(items))
        assert isinstance(solved, Solved)
        message = _message(ReplyParts(solved.reasoning, solved.content))
        choices = [_message_choice(0, message, "stop")]
        return JSONResponse({**head, "choices": choices, "usage": solved.usage})

    def _names(self) -> tuple[str, str]:
        return self.model.setup.name, self.model.setup.vote_name

    def _check_name(self, name: str) -> None:
        names = self._names()
        if name not in names:
            said = f"There is no model {name[:100]!r} here, only {' and '.join(names)}."
            raise ApiError(said, 404, "model", "model_not_found")

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "eightfold"}


async def _whole(request: Request, answer: Answer) -> list[Choice]:
    """Return the choices of an answer, which ends as soon as the client leaves."""
    try:
        return await unless_gone(request.receive, answer.whole())
    finally:
        answer.close()


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
        "created": int(time.time()),
        "model": model,
    }


def _text_choice(choice: Choice, text: str) -> dict[str, Any]:
    return {
        "index": choice.index,
        "text": text,
        "logprobs": None,
        "finish_reason": choice.finish,
    }


def _message_choice(index: int, message: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def _message(parts: ReplyParts) -> dict[str, Any]:
    calls = _call_objects(parts)
    content = parts.content if parts.content or not calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if parts.reasoning:
        message["reasoning_content"] = parts.reasoning
    return {**message, "tool_calls": calls} if calls else message


def _call_objects(parts: ReplyParts) -> list[dict[str, Any]]:
    return [
        {
            "id": secrets.token_hex(5)[:9],  # Mistral's templates take no other length
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in parts.calls
    ]


# ---- streams


async def _completion_events(
    write: EventWriter, answer: Answer, body: CompletionBody, echoes: list[str]
) -> AsyncGenerator[bytes, None]:
    waiting = dict(enumerate(echoes))
    async with aclosing(answer.deltas()) as steps:
        async for deltas in steps:
            yield b"".join(
                write.choice(
                    _text_choice(one.choice, waiting.pop(one.choice.index, "") + one.new.content)
                )
                for one in deltas
            )
    if body.usage_wanted:
        yield write.fields([], usage=answer.usage)


async def _chat_events(
    write: EventWriter, answer: Answer, body: GenerationBody
) -> AsyncGenerator[bytes, None]:
    start = {"role": "assistant", "content": ""}
    async with aclosing(answer.deltas()) as steps:
        yield b"".join(write.delta(index, start) for index in range(body.n))
        async for deltas in steps:
            yield b"".join(
                event for one in deltas for event in _part_events(write, one.choice, one.new)
            )
    if body.usage_wanted:
        yield write.fields([], usage=answer.usage)


def _part_events(write: EventWriter, choice: Choice, new: ReplyParts) -> list[bytes]:
    """Return an event for each kind of part, and one for the end."""
    index, events = choice.index, []
    if new.reasoning:
        events.append(write.delta(index, {"reasoning_content": new.reasoning}))
    if new.content:
        events.append(write.delta(index, {"content": new.content}))
    if new.calls:
        calls = [{"index": i, **call} for i, call in enumerate(_call_objects(new))]
        events.append(write.delta(index, {"tool_calls": calls}))
    if choice.finish is not None:
        events.append(write.delta(index, {}, choice.finish))
    return events


async def _vote_events(
    write: EventWriter, items: AsyncGenerator[str | Solved, None], body: ChatBody
) -> AsyncGenerator[bytes, None]:
    yield write.delta(0, {"role": "assistant", "content": ""})
    async with aclosing(items):
        async for item in items:
            if isinstance(item, str):
                yield write.delta(0, {"reasoning_content": f"{item}\n"})
                continue
            yield write.delta(0, {"reasoning_content": item.reasoning})
            yield write.delta(0, {"content": item.content})
            end = _message_choice(0, {}, "stop")
            end["delta"] = end.pop("message")
            yield write.fields([end], usage=item.usage)
            if body.usage_wanted:
                yield write.fields([], usage=item.usage)
