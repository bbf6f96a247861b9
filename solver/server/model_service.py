"""What the server serves: one model, by requests to the engine's process."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .api_errors import ApiError
from .chat_prompts import ChatPrompts
from .link.engine_client import Generation
from .link.engine_clients import EngineClients
from .link.messages import Setup, Update
from .replies.function_calls import CALL_FORMS, ToolTypes
from .replies.harmony_reply import TOKENS, HarmonyReply, marked_text
from .replies.reply_parts import ReplyParts
from .replies.tagged_reply import TAGS, TaggedReply
from .replies.text_stream import TextStream
from .request_bodies import ChatBody, CompletionBody, GenerationBody
from .server_metrics import ServerMetrics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import SamplingParams

LIMIT_REASONS = ("length", "context")
HARMONY = "harmony"

Reply = TaggedReply | HarmonyReply


@dataclass
class Choice:
    """One of the answers to a request.

    Attributes:
        index: its number among all answers of the request.
        parts: what has been written so far.
        tokens: number of sampled tokens.
        finish: why it ended: "stop", "length" or "tool_calls"; None while it runs.
    """

    index: int
    parts: ReplyParts = field(default_factory=ReplyParts)
    tokens: int = 0
    finish: str | None = None


@dataclass(frozen=True)
class Delta:
    """New parts of a choice, and the choice after it."""

    choice: Choice
    new: ReplyParts


class ModelService:
    """Generates answers with one model.

    Args:
        setup: the model's names, tokenizer, chat format and sampling values.
        engines: the connections to the engines.

    Attributes:
        metrics: figures of the server.
        prompts: renders conversations.
    """

    def __init__(self, setup: Setup, engines: EngineClients) -> None:
        self.setup = setup
        self.engines = engines
        self.metrics = ServerMetrics()
        self.tokenizer: PreTrainedTokenizerBase = setup.tokenizer
        self.prompts = ChatPrompts(self.tokenizer)
        self._form = CALL_FORMS.get(setup.family)
        added = self.tokenizer.added_tokens_decoder
        special = {i: str(token) for i, token in added.items() if token.special}
        special |= {i: "" for i in self.tokenizer.all_special_ids if i not in special}
        ends = frozenset(setup.ends)

        def hidden(*read: str) -> frozenset[int]:
            """Return the tokens that are no text, but for those whose text is read."""
            return frozenset(i for i, text in special.items() if text not in read) | ends

        calls = () if self._form is None else (*self._form.marks, *self._form.tokens)
        self._hidden = hidden()
        self._chat_hidden, self._tools_hidden = hidden(*TAGS), hidden(*TAGS, *calls)
        control: dict[int, str] = {}
        if setup.family == HARMONY:
            vocabulary = self.tokenizer.get_vocab()
            control = {vocabulary[text]: text for text in TOKENS if text in vocabulary}
            self._chat_hidden = self._tools_hidden = hidden() - control.keys()

        @lru_cache(1 << 14)
        def decode(ids: tuple[int, ...]) -> str:
            text: str = self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            return text

        def decode_marked(ids: Sequence[int]) -> str:
            return marked_text(ids, control, lambda part: decode(tuple(part)))

        self._decode = decode
        self._decode_chat = decode_marked if control else decode

    def complete(self, prompts: Sequence[Sequence[int]], body: CompletionBody) -> Answer:
        """Return the answer that continues the prompts.

        Raises:
            ApiError: the engine does not take a value, or has ended.
        """
        writers = [
            _ChoiceWriter(Choice(index), self._decode, self._hidden, body.stops)
            for index in range(len(prompts) * body.n)
        ]
        return self._answer(prompts, body, body.max_tokens, writers)

    def converse(self, body: ChatBody) -> Answer:
        """Return the answer to a conversation.

        Raises:
            ApiError: the messages or tools cannot be used, the engine does not take a value, or it
                has ended.
        """
        tools = body.tools if body.tools and body.tool_choice != "none" else []
        if tools and self._form is None and self.setup.family != HARMONY:
            said = (
                f"Calls of a model of the family {self.setup.family} are not read back; leave "
                "tools out."
            )
            raise ApiError(said, 400, "tools")
        prompt = self.prompts.encode(body.messages, tools, self._template_options(body))

        def reply() -> Reply:
            if self.setup.family == HARMONY:
                return HarmonyReply(ToolTypes(tools) if tools else None)
            return TaggedReply(self._form if tools else None, ToolTypes(tools), prompt.opener)

        hidden = self._tools_hidden if tools else self._chat_hidden
        writers = [
            _ChoiceWriter(Choice(index), self._decode_chat, hidden, body.stops, reply())
            for index in range(body.n)
        ]
        return self._answer([prompt.ids], body, body.most_tokens, writers)

    def _template_options(self, body: ChatBody) -> dict[str, Any]:
        """Return the variables of the chat template that a request sets.

        Raises:
            ApiError: the chat template knows no reasoning efforts.
        """
        options: dict[str, Any] = {}
        if self.setup.effort is not None:
            options["reasoning_effort"] = self.setup.effort
        options |= body.chat_template_kwargs or {}
        if body.reasoning_effort is not None:
            if not self.setup.efforts:
                said = "This model's chat template knows no reasoning_effort; leave it out."
                raise ApiError(said, 400, "reasoning_effort")
            options["reasoning_effort"] = body.reasoning_effort
        return options

    def _answer(
        self,
        prompts: Sequence[Sequence[int]],
        body: GenerationBody,
        most_tokens: int | None,
        writers: Sequence[_ChoiceWriter],
    ) -> Answer:
        params = self._params(body, most_tokens)
        seed = secrets.randbits(63) if body.seed is None else body.seed
        count = len(prompts) * body.n
        numbers = [(seed + index) % 2**64 for index in range(count)]
        seeds = [numbers[start : start + body.n] for start in range(0, count, body.n)]
        generation = Generation(self.engines.least_busy(), prompts, seeds, params)
        return Answer(generation, writers, self.metrics, sum(map(len, prompts)))

    def _params(self, body: GenerationBody, most_tokens: int | None) -> SamplingParams:
        """Return the sampling parameters of a request.

        Raises:
            ApiError: the engine does not take a value.
        """
        given = {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": None if body.top_k is None else max(0, body.top_k),
            "min_p": body.min_p,
        }
        values: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
        try:
            return replace(
                self.setup.defaults,
                **values,
                max_new_tokens=most_tokens,
                pause_token_ids=(),
                stop_token_ids=() if body.ignore_eos else self.setup.ends,
                entropy=False,
            )
        except ValueError as error:
            raise ApiError(str(error)) from error


class Answer:
    """An answer under way.

    Args:
        generation: its sequences.
        writers: what turns each sequence into a choice.
        metrics: where it is counted.
        prompt_tokens: number of tokens of all its prompts.
    """

    def __init__(
        self,
        generation: Generation,
        writers: Sequence[_ChoiceWriter],
        metrics: ServerMetrics,
        prompt_tokens: int,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self._generation, self._writers, self._metrics = generation, writers, metrics
        self._began = time.monotonic()

    @property
    def choices(self) -> list[Choice]:
        """The choices; choice `i * n + j` is the j-th answer to the i-th prompt."""
        return [writer.choice for writer in self._writers]

    @property
    def usage(self) -> dict[str, int]:
        """The tokens so far, as the protocol counts them."""
        completion = sum(writer.choice.tokens for writer in self._writers)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    async def start(self) -> None:
        """Wait until the engine has taken the prompts.

        Raises:
            ApiError: a prompt does not fit, or the engine failed.
        """
        await self._generation.start()

    async def deltas(self) -> AsyncGenerator[list[Delta], None]:
        """Yield what is new in the choices, by step, until all have ended.

        Raises:
            ApiError: the engine failed.
        """
        first = True
        async for updates in self._generation.updates():
            if first:
                self._metrics.first_token.observe(time.monotonic() - self._began)
                first = False
            yield [delta for update in updates for delta in self._take(update)]
        self._metrics.prompt_tokens.inc(self.prompt_tokens)
        self._metrics.completion_tokens.inc(self.usage["completion_tokens"])
        self._metrics.seconds.observe(time.monotonic() - self._began)

    def close(self) -> None:
        """Cancel what still runs."""
        self._generation.close()

    def _take(self, update: Update) -> Iterator[Delta]:
        writer = self._writers[update.sequence]
        if writer.choice.finish is None:
            new = writer.add(update)
            if new or writer.choice.finish is not None:
                yield Delta(writer.choice, new)
            if writer.stopped and update.reason is None:
                self._generation.stop(update.sequence)

    async def whole(self) -> list[Choice]:
        """Return the choices once all have ended."""
        async for _ in self.deltas():
            pass
        return self.choices


class _ChoiceWriter:
    """Turns the updates of one sequence into a choice.

    Args:
        choice: the choice.
        decode: returns the text of token ids.
        hidden: tokens that are no text.
        stops: texts that end the answer.
        reply: what splits the text into its parts; None takes all of it as content.
    """

    def __init__(
        self,
        choice: Choice,
        decode: Callable[[tuple[int, ...]], str],
        hidden: frozenset[int],
        stops: Sequence[str],
        reply: Reply | None = None,
    ) -> None:
        self.choice = choice
        self._hidden, self._reply = hidden, reply
        self._stream = TextStream(lambda ids: decode(tuple(ids)), stops)

    @property
    def stopped(self) -> bool:
        """True once the text has reached a stop text."""
        return self._stream.stopped

    def add(self, update: Update) -> ReplyParts:
        """Take an update in and return what is new."""
        choice, last = self.choice, update.reason is not None
        choice.tokens += len(update.tokens)
        text = self._stream.add([t for t in update.tokens if t not in self._hidden], last)
        last |= self.stopped
        new = ReplyParts(content=text) if self._reply is None else self._reply.add(text, last)
        choice.parts.add(new)
        if last:
            limited = update.reason in LIMIT_REASONS and not self.stopped
            choice.finish = "length" if limited else "tool_calls" if choice.parts.calls else "stop"
        return new
