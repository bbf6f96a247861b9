"""Messages of a conversation as token ids, by the model's own chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eightfold.common.error_text import first_line

from ..chat.readers.thought_tags import open_thought
from ..chat.untrusted_text import UntrustedTextEncoder
from .api_errors import ApiError
from .request_bodies import ChatMessage, valid_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation up to where the model begins to write.

    Attributes:
        ids: token ids.
        opener: opening of a thought that the prompt leaves open, or "".
    """

    ids: list[int]
    opener: str


@dataclass(frozen=True)
class CallForm:
    """How a chat template takes messages with calls.

    Attributes:
        as_text: give it the arguments as text, not as objects.
        empty: the content of a message that holds nothing but calls.
    """

    as_text: bool
    empty: str | None

    def of(self, dicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages in this form."""
        return [self._message(one) if "tool_calls" in one else one for one in dicts]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        calls = message["tool_calls"]
        if self.as_text:
            calls = [{**call, "function": _as_text(call["function"])} for call in calls]
        return {**message, "content": message["content"] or self.empty, "tool_calls": calls}


CALL_FORMS = (
    CallForm(False, ""),
    CallForm(False, None),
    CallForm(True, ""),
    CallForm(True, None),
)
"""Forms in the order in which they are tried."""

_PROBE: list[dict[str, Any]] = [
    {"role": "user", "content": "probe"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "123456789",
                "type": "function",
                "function": {"name": "probe_name", "arguments": {"key": "probe_value"}},
            }
        ],
    },
    {"role": "tool", "name": "probe_name", "tool_call_id": "123456789", "content": "probe_result"},
]


class ChatPrompts:
    """Renders conversations.

    Args:
        tokenizer: a tokenizer with a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._untrusted = UntrustedTextEncoder(tokenizer)

    def encode(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[dict[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> ChatPrompt:
        """Return a conversation as token ids, up to where the model begins to write.

        Texts of control tokens in messages are encoded as ordinary text.

        Args:
            messages: the conversation.
            tools: the tools, as JSON schemas.
            options: further variables of the chat template.

        Raises:
            ApiError: a message holds something else than text, or the template refuses them.
        """
        dicts = [_as_dict(index, message) for index, message in enumerate(messages)]
        marked: dict[str, str] = {}  # texts that hold control tokens, by what stands for them
        for index, one in enumerate(dicts):
            if self._untrusted.has_control(one["content"]):
                mark = self._mark(index, dicts)
                marked[mark], one["content"] = one["content"], mark
        text = self._render(dicts, tools, options or {})
        said = dicts[-1]["content"].strip()
        opener = open_thought(text.rpartition(said)[2]) if said else ""
        ids: list[int] = []
        for mark, content in marked.items():
            before, found, text = text.partition(mark)
            if not found:
                raise ApiError(
                    "The chat template does not show each message once.", 400, "messages"
                )
            ids += self._ids(before) + self._untrusted.encode(content)
        return ChatPrompt(ids + self._ids(text), opener)

    def _render(
        self,
        dicts: list[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        options: Mapping[str, Any],
    ) -> str:
        form: CallForm | None = CALL_FORMS[0]
        if any("tool_calls" in one for one in dicts):
            form = self._call_form
        if form is None:
            said = "The model's chat template does not show earlier calls; leave them out."
            raise ApiError(said, 400, "messages")
        try:
            return self._apply(form.of(dicts), tools, options)
        except Exception as error:  # templates raise errors of many kinds
            reason = first_line(error).rstrip(".")
            said = f"The model's chat template refuses these messages: {reason}."
            raise ApiError(said, 400, "messages") from error

    def _apply(
        self,
        dicts: list[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        text = self._tokenizer.apply_chat_template(
            dicts,
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=True,
            **(options or {}),
        )
        assert isinstance(text, str)
        return text

    @cached_property
    def _call_form(self) -> CallForm | None:
        """The first form of messages with calls of which the template shows most.

        None if it shows no call. Templates that ask for a content of None do not under newer
        versions of transformers, which drop keys without a value.
        """

        def shown(form: CallForm) -> int:
            messages = form.of(_PROBE)
            without = [messages[0], {"role": "assistant", "content": ""}, messages[2]]
            try:
                text = self._apply(messages)
            except Exception:
                return 0
            try:
                if text == self._apply(without):
                    return 0
            except Exception:  # a result without a call
                pass
            words = ("probe_name", "probe_value", "probe_result")
            return 1 + sum(word in text for word in words)

        best = max(CALL_FORMS, key=shown)
        return best if shown(best) else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    @staticmethod
    def _mark(index: int, dicts: Sequence[dict[str, Any]]) -> str:
        mark = f"message{index}text"
        while any(mark in one["content"] for one in dicts):
            mark += "x"
        return mark


def text_of(index: int, message: ChatMessage) -> str:
    """Return the text of a message, whose parts are joined.

    Raises:
        ApiError: a part is something else than text.
    """
    if isinstance(message.content, str):
        return message.content
    texts = []
    for part in message.content or []:
        text = part.get("text")
        if part.get("type") not in ("text", "input_text") or not isinstance(text, str):
            raise ApiError(
                f"Message {index} has a part of the type {part.get('type')!r}; only text is read.",
                400,
                f"messages.{index}.content",
            )
        texts.append(text)
    return "\n".join(texts)


def _as_dict(index: int, message: ChatMessage) -> dict[str, Any]:
    """Return a message as chat templates take it: arguments of calls are objects there."""
    fields = message.model_dump(exclude_none=True)
    fields["content"] = text_of(index, message)
    if message.tool_calls is None:
        return fields
    calls = []
    for call in message.tool_calls:
        function = call.get("function")
        if not isinstance(function, dict):
            said = f"Message {index} has a tool call without the object function."
            raise ApiError(said, 400, f"messages.{index}.tool_calls")
        function = dict(function)
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = valid_json(json.loads(function["arguments"] or "{}"))
            except (ValueError, RecursionError):
                function["arguments"] = None
        if not isinstance(function.setdefault("arguments", {}), dict):
            said = f"Message {index} has a tool call whose arguments are no JSON object."
            raise ApiError(said, 400, f"messages.{index}.tool_calls")
        calls.append({**call, "function": function})
    return {**fields, "tool_calls": calls}


def _as_text(function: dict[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": json.dumps(function.get("arguments", {}))}
