"""What the server serves: a model by its engine, and the whole solver, which votes."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .api_errors import ApiError
from .function_calls import CALL_FORMS, CallForm, CallHold, FunctionCall, read_calls
from .generation import EngineHub, Generation, Update
from .request_bodies import GenerationBody
from .server_metrics import ServerMetrics
from .text_stream import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import SamplingParams

    from ..solver import Solver

LIMIT_REASONS = ("length", "context")


@dataclass
class Choice:
    """One of the answers to a request.

    Attributes:
        index: its number among all answers of the request.
        content: the text so far, without the calls of tools.
        calls: calls of the request's tools, known at the end.
        tokens: number of sampled tokens.
        finish: why it ended: "stop", "length" or "tool_calls"; None while it runs.
    """

    index: int
    content: str = ""
    calls: Sequence[FunctionCall] = ()
    tokens: int = 0
    finish: str | None = None


@dataclass(frozen=True)
class Delta:
    """New text of a choice, and the choice after it."""

    choice: Choice
    text: str


class ModelService:
    """Generates answers with one model.

    Args:
        solver: the solver whose engine, tokenizer and sampling values are used.
        name: name of the model in requests.

    Attributes:
        hub: connects the engine with the event loop.
        metrics: figures of the server.
    """

    def __init__(self, solver: Solver, name: str) -> None:
        self.solver = solver
        self.name = name
        self.vote_name = f"{name}:vote{solver.config.attempts}"
        self.tokenizer: PreTrainedTokenizerBase = solver.protocol.tokenizer
        self.hub = EngineHub(solver.loop)
        self.metrics = ServerMetrics(self.engine_stats, lambda: len(self.hub.generations))
        self.call_form: CallForm | None = CALL_FORMS.get(solver.protocol.family)
        self._defaults = solver.sampling
        self.ends = tuple(sorted(solver.protocol.pause_token_ids))

    def engine_stats(self) -> dict[str, Any]:
        """Return the engine's counters."""
        stats: dict[str, Any] = self.solver.loop.engine.stats()  # type: ignore[attr-defined]
        return stats

    def params(self, body: GenerationBody, most_tokens: int | None) -> SamplingParams:
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
                self._defaults,
                **values,
                max_new_tokens=most_tokens,
                pause_token_ids=(),
                stop_token_ids=self.ends,
                entropy=False,
            )
        except ValueError as error:
            raise ApiError(str(error)) from error

    async def answer(
        self,
        prompts: Sequence[Sequence[int]],
        body: GenerationBody,
        most_tokens: int | None,
        with_calls: bool = False,
    ) -> AsyncIterator[Delta]:
        """Yield what is new in the answers to the prompts, until all have ended.

        Args:
            prompts: token ids of each prompt; choice `i * n + j` is the j-th answer to the i-th.
            body: the request.
            most_tokens: largest number of tokens of an answer; None leaves the context as limit.
            with_calls: True if calls of tools are read from the text.

        Raises:
            ApiError: a prompt does not fit, or the engine failed.
        """
        began = time.monotonic()
        params = self.params(body, most_tokens)
        seed = secrets.randbits(63) if body.seed is None else body.seed % 2**64
        first = True
        for number, prompt in enumerate(prompts):
            # Texts of one request are answered one after another, each with all of its choices.
            start = number * body.n
            seeds = [(seed + start + index) % 2**64 for index in range(body.n)]
            writers = [
                _ChoiceWriter(Choice(start + index), self, body.stops, with_calls)
                for index in range(body.n)
            ]
            generation = Generation(self.hub, prompt, params, seeds)
            async for update in generation.run():
                if first:
                    self.metrics.first_token.observe(time.monotonic() - began)
                    first = False
                writer = writers[update.index]
                for delta in writer.add(update):
                    yield delta
                if writer.stopped and update.reason is None:
                    generation.stop(update.index)
            self.metrics.prompt_tokens.inc(len(prompt))
            self.metrics.completion_tokens.inc(sum(one.choice.tokens for one in writers))
        self.metrics.seconds.observe(time.monotonic() - began)


class _ChoiceWriter:
    """Turns the updates of one sequence into a choice."""

    def __init__(
        self, choice: Choice, service: ModelService, stops: Sequence[str], with_calls: bool
    ) -> None:
        self.choice = choice
        self._ends = frozenset(service.ends)
        self._form = service.call_form if with_calls else None
        self._hold = CallHold(self._form) if self._form is not None else None
        tokenizer, special = service.tokenizer, not with_calls

        def decode(ids: Sequence[int]) -> str:
            text: str = tokenizer.decode(
                list(ids), skip_special_tokens=special, clean_up_tokenization_spaces=False
            )
            return text

        self._stream = TextStream(decode, stops)

    @property
    def stopped(self) -> bool:
        """True once the text has reached a stop text."""
        return self._stream.stopped

    def add(self, update: Update) -> list[Delta]:
        """Take an update in and return what is new, which may be nothing."""
        choice = self.choice
        if choice.finish is not None:
            return []
        tokens, last = update.tokens, update.reason is not None
        if not self.stopped:
            choice.tokens += len(tokens)
        text = self._stream.add([t for t in tokens if t not in self._ends], last)
        if self._hold is not None:
            text = self._hold.add(text)
        if last or self.stopped:
            content, calls = self._stream.text, list[FunctionCall]()
            if self._form is not None and self._hold is not None:
                content, calls = read_calls(self._form, content)
                text += self._hold.rest(content)
            choice.content, choice.calls = content, calls
            limited = update.reason in LIMIT_REASONS and not self.stopped
            choice.finish = "length" if limited else "tool_calls" if calls else "stop"
            return [Delta(choice, text)]
        return [Delta(choice, text)] if text else []
