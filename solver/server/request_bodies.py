"""Bodies of requests: what is read of the protocol, and what is refused by name.

Fields that cannot change an answer here, such as `user`, are accepted. Fields that would change it
and are not supported are accepted only with the value that changes nothing.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from transformers import PreTrainedTokenizerBase

from eightfold.common.valid_text import replace_surrogates

from ..solver_config import SAMPLING_BOUNDS

MAX_CHOICES = 128
MAX_TOP_K = int(SAMPLING_BOUNDS["top_k"][1])
NO_PARAMETERS = {"type": "object", "properties": {}}

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "suffix": ("",),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "functions": ([],),
}
"""Fields that are not supported, with the values that ask for nothing; null always does."""

INERT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention",),
)
"""Fields that tell the server who asks, or what to keep; nothing is kept here."""


RESERVED = frozenset(signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {
    *("messages", "add_special_tokens"),
}
"""Names that are options of the rendering, not variables of a chat template."""


def valid_json(value: Any) -> Any:
    """Return a JSON value with a question mark for each lone surrogate in its texts.

    JSON may escape half of a surrogate pair, which no tokenizer accepts.

    Raises:
        ValueError: the value is nested too deeply.
    """
    try:
        return _valid_json(value)
    except RecursionError:
        raise ValueError("the request's body is nested too deeply") from None


def _valid_json(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [_valid_json(one) for one in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): _valid_json(one) for name, one in value.items()}
    return value


def _is_neutral(name: str, value: Any) -> bool:
    """Return whether a value asks for nothing; False and 0 differ: `logprobs` of 0 asks for one."""
    return any(
        value == one and isinstance(value, bool) is isinstance(one, bool)
        for one in NEUTRAL.get(name, ())
    )


class StreamOptions(BaseModel):
    """What a stream holds beside the text.

    Attributes:
        include_usage: end the stream with the usage.
        include_obfuscation: nothing is added here to hide the lengths of events.
    """

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class GenerationBody(BaseModel):
    """The fields that both kinds of requests share.

    Attributes:
        temperature, top_p, top_k, min_p: None takes the checkpoint's values.
        stop: texts in front of which the answer ends.
        ignore_eos: go on behind end tokens, up to the largest number of tokens; for measurements.
        seed: choices of equal requests with equal seeds are equal; None draws one.
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=MAX_TOP_K)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, values: Any) -> Any:
        """Drop fields that ask for nothing; the others that are unknown are refused by name."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            name: value
            for name, value in values.items()
            if name in fields or not (value is None or name in INERT or _is_neutral(name, value))
        }

    @model_validator(mode="before")
    @classmethod
    def _valid_texts(cls, values: Any) -> Any:
        """Replace lone surrogates."""
        return valid_json(values)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        """Take null as the default, as the protocol does."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which the answer ends; empty texts would end it at once."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    @property
    def usage_wanted(self) -> bool:
        """True if a stream is to end with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(GenerationBody):
    """The body of /v1/completions.

    Attributes:
        prompt: a text or token ids, or a list of either.
        echo: put the prompt in front of each answer.
    """

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(16, ge=1)
    echo: bool = False


class ChatMessage(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatBody(GenerationBody):
    """The body of /v1/chat/completions.

    Attributes:
        max_completion_tokens: another name of `max_tokens`, the newer one.
        tools: tools in the form of JSON schemas, as the chat template takes them.
        tool_choice: "auto", or "none" to leave the tools out.
        reasoning_effort: "low", "medium" or "high", for models whose chat template knows it.
        chat_template_kwargs: variables of the chat template, such as `enable_thinking`.
    """

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] = "auto"
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("tools")
    @classmethod
    def _named(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        """Refuse tools that are no functions with names; one without parameters takes none."""
        found = []
        for number, tool in enumerate(tools or ()):
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise ValueError(f"tool {number} has no object function with a name")
            parameters = function.get("parameters")
            if not isinstance(parameters, dict | None):
                raise ValueError(f"the parameters of tool {number} are no JSON schema of an object")
            found.append(
                {**tool, "function": {**function, "parameters": parameters or NO_PARAMETERS}}
            )
        return found

    @field_validator("chat_template_kwargs")
    @classmethod
    def _not_reserved(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse names that the server gives itself."""
        wrong = sorted(set(values or ()) & RESERVED)
        if wrong:
            raise ValueError(f"{wrong[0]} is no variable of a chat template; leave it out")
        return values

    @property
    def most_tokens(self) -> int | None:
        """The largest number of tokens of an answer; None leaves the context as the limit."""
        return self.max_completion_tokens or self.max_tokens
