"""The chat format of gpt-oss."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..chat_protocol import ChatProtocol
from ..prompt_texts import Prompts
from ..reading_cadence import unread_tokens
from ..template_framing import Framing, ProtocolError
from ..template_options import NO_OPTIONS, TemplateOptions
from ..tool_call import Call, CallText, MalformedCall
from ..turn_contents import EarlyStop, Reply, TurnContents
from .harmony_vocabulary import REQUIRED, TURN_ENDS, Control, HarmonyVocabulary
from .message_calls import message_calls, read_messages
from .message_reader import ENDS, HarmonyMessage, MessageReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = "2025-08-05"
"""The current date in every prompt, so that a prompt depends on its problem alone."""

_FIXED_DATE = f"{{%- macro strftime_now(format) -%}}{DATE}{{%- endmacro -%}}"

DEFAULT_EFFORT = "high"
"""The reasoning effort if none is asked for; the chat template's own default is medium."""

TOOL_CHANNELS = ("analysis", "commentary")
"""Channels in which results may stand; those of calls in other channels stand in the first."""

_TIME_LIMIT = re.compile(r"(time out after )\d+(?:\.\d+)?(?= seconds)")
_HEADER_TOKENS = 24  # tokens from a start token to the message token that belongs to it


class HarmonyFormat(ChatProtocol):
    """Messages with headers: thoughts, calls and answers differ in channel and recipient.

    The prompt is rendered by the checkpoint's own chat template with its built-in Python tool.
    Everything else is read from, and appended as, token ids; see `message_reader.py`.
    """

    family = "harmony"
    pause_tokens = (Control.CALL,)
    turn_ends = (Control.RETURN,)
    inner_ends = (Control.END,)
    efforts = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        end_ids: Sequence[int] = (),
        reason: str = "",
        options: TemplateOptions = NO_OPTIONS,
    ) -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        stops = {vocabulary[Control.STOP]} if Control.STOP in vocabulary else set()
        super().__init__(tokenizer, prompts, [*end_ids, *stops], reason, options)
        self._ids = HarmonyVocabulary.of(
            vocabulary, self.end_ids, self.untrusted_text.control_ids, self.decode
        )
        self._messages_of = MessageReader(self._ids).read
        if options.reasoning_effort is not None and not self._heeds_effort():
            raise ProtocolError(
                "The checkpoint's chat template ignores the reasoning effort; leave it out."
            )

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        missing = [token for token in REQUIRED if token not in vocabulary]
        headers = (Control.START, Control.CHANNEL, Control.MESSAGE)
        if missing and all(token in template for token in headers):
            raise ProtocolError(
                "The chat template is that of gpt-oss, but the tokenizer has no token "
                f"{missing[0]}; copy tokenizer.json and tokenizer_config.json again."
            )
        shown = not missing and Control.MESSAGE in template
        return "the vocabulary has the tokens <|channel|> and <|call|>" if shown else ""

    def read_turn(self, opener: str, tokens: Sequence[int]) -> TurnContents:
        ended = bool(tokens) and self._ids.control.get(tokens[-1]) in TURN_ENDS
        return read_messages(self._messages_in(opener, tokens), ended, self._reader)

    def early_stop(self, opener: str, tokens: Sequence[int], new: int) -> EarlyStop | None:
        """Stop where a visible message completes a block of code, or an output is invented.

        The latter is a message in the tool's name behind a call that was not sent; what follows the
        call is taken back.
        """
        if not tokens:
            return None
        count, last = len(tokens), self._ids.control.get(tokens[-1])
        unread = unread_tokens(count, new, count, last in TURN_ENDS)
        if unread and self._invents_output(tokens, unread):
            stop = self._stop_at_call(opener, tokens)
            if stop is not None:
                return stop
        # Only the message that is being written is read: thoughts may be long, and full of fences.
        last_start = _last_index(tokens, self._ids.ids[Control.START])
        unread = unread_tokens(count, new, count - (last_start or 0), last in ENDS)
        if not unread or not self._ends_with_fence(tokens, unread):
            return None
        offset = last_start if last_start is not None else -len(self._encode(opener))
        messages = self._messages_in(opener if offset < 0 else "", tokens[max(0, offset) :])
        return self._stop_in(messages[-1], offset, tokens) if messages else None

    def reply_to_calls(
        self, opener: str, tokens: Sequence[int], outputs: Sequence[str], stopped: bool
    ) -> Reply:
        own = [message for message in self._messages_in(opener, tokens) if message.from_model]
        last = own[-1]
        if stopped and last.header.tool is None:  # the output belongs to the message
            ids = self.code_output(outputs, last.text)
            channel = last.header.channel
            head = "" if channel is None else f"{Control.CHANNEL}{channel}"
            return Reply(tuple(ids), f"{head}{Control.MESSAGE}")
        called = [message for message in own if message_calls(message, self._reader)]
        channel = called[-1].header.channel if called else None
        ids = self.tool_response(outputs, channel or TOOL_CHANNELS[0])
        if stopped:
            return Reply((self._ids.ids[Control.CALL], *ids))
        if last.closed_by is Control.CALL:
            return Reply(tuple(ids))
        closing = Control.CALL if last.header.tool is not None else Control.END
        return Reply((*self._closing(opener, tokens, closing), *ids), drop_last=True)

    def answer_request(self, opener: str, tokens: Sequence[int]) -> Reply:
        closing = self._closing(opener, tokens, Control.END)
        return Reply((*closing, *self.nudge()), drop_last=True)

    def tool_response(self, outputs: Sequence[str], channel: str = TOOL_CHANNELS[0]) -> list[int]:
        """Return the token ids to append behind a call.

        Args:
            outputs: one text for each call, in the order of the calls.
            channel: the channel of the call.
        """
        if channel not in TOOL_CHANNELS:
            channel = TOOL_CHANNELS[0]
        head = self._encode(f"<|start|>python to=assistant<|channel|>{channel}<|message|>")
        ids: list[int] = []
        for output in outputs:
            ids += [*head, *self.untrusted_text.encode(output), self._ids.ids[Control.END]]
        return [*ids, *self._encode("<|start|>assistant")]

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        return list(self.read_turn("", self._encode(text)).calls)

    def final_text(self, text: str) -> str:
        return self.read_turn("", self._encode(text)).final

    def code_end(self, text: str) -> int | None:
        at = 0
        for message in self._messages_of(self._encode(text)):
            at = max(at, text.find(message.text, at))
            end = self._end_in(message)
            if end is not None:
                return at + end
        return None

    def _read_call(self, text: str, start: int) -> CallText | None:
        raise AssertionError("Calls are read from messages, not from marks.")

    def _messages_in(self, opener: str, tokens: Sequence[int]) -> list[HarmonyMessage]:
        """Return the messages of a turn; indices count from the turn's first token."""
        return self._messages_of([*self._encode(opener), *tokens] if opener else tokens)

    def _end_in(self, message: HarmonyMessage) -> int | None:
        """Return where code ends in the text of a visible message, as `code_end` does."""
        header = message.header
        visible = message.from_model and header.tool is None and header.channel != "analysis"
        if not visible or ("```" not in message.text and "~~~" not in message.text):
            return None
        return self._reader.read(message.text, ended=False).code_end()

    def _stop_in(
        self, message: HarmonyMessage, offset: int, tokens: Sequence[int]
    ) -> EarlyStop | None:
        """Return where code ends in a message whose indices are `offset` less than the turn's."""
        end = self._end_in(message)
        if end is None:
            return None
        calls = self._reader.read(message.text[:end], ended=False).calls()
        start, stop = max(0, message.body + offset), message.stop + offset
        kept = bisect_left(
            range(start + 1, stop), end, key=lambda n: len(self._ids.text(tokens[start:n]))
        )
        return EarlyStop(min(stop, start + 1 + kept), tuple(calls)) if calls else None

    def _invents_output(self, tokens: Sequence[int], new: int) -> bool:
        """Return True if one of the last `new` tokens begins the content of a tool's message."""
        start, message = self._ids.ids[Control.START], self._ids.ids[Control.MESSAGE]
        recent = tokens[max(0, len(tokens) - new - _HEADER_TOKENS) :]
        for index in range(max(0, len(recent) - new), len(recent)):
            begin = _last_index(recent[:index], start) if recent[index] == message else None
            if begin is None:
                continue
            *_, written = self._messages_of(recent[begin : index + 1])
            if not written.from_model:
                return True
        return False

    def _stop_at_call(self, opener: str, tokens: Sequence[int]) -> EarlyStop | None:
        """Return the end of the last call in front of the first message that is not the model's."""
        before = len(self._encode(opener)) if opener else 0
        call = None
        for message in self._messages_in(opener, tokens):
            if message.from_model and message.header.tool is not None:
                call = message if message.body < message.stop else call
            elif not message.from_model and call is not None:
                return EarlyStop(call.stop - before, message_calls(call, self._reader))
        return None

    def _closing(self, opener: str, tokens: Sequence[int], kind: Control) -> list[int]:
        """Return what closes the message that the last token, the end of the turn, is to be in."""
        written = [*self._encode(opener), *tokens[:-1]]
        for token in reversed(written):
            found = self._ids.control.get(token, Control.OTHER)
            if found is Control.MESSAGE:
                return [self._ids.ids[kind]]
            if found in ENDS:
                return [] if token == written[-1] else [self._ids.ids[kind]]
            if found is not Control.OTHER:
                break
        return [self._ids.ids[Control.MESSAGE], self._ids.ids[kind]]

    def _heeds_effort(self) -> bool:
        """Return True if the chat template shows the reasoning effort."""
        chosen, messages = self.options, self._messages("1")
        shown = set()
        for effort in ("low", "high"):
            self.options = TemplateOptions(effort, chosen.tool_seconds)
            shown.add(self._render(messages))
        self.options = chosen
        return len(shown) == 2

    def _template_arguments(self, declared: Prompts | None) -> dict[str, Any]:
        return {
            # The macro takes the place of the function that returns today's date.
            "chat_template": _FIXED_DATE + self.tokenizer.get_chat_template(),
            "builtin_tools": [] if declared is None else ["python"],
            "reasoning_effort": self.options.reasoning_effort or DEFAULT_EFFORT,
        }

    def _render(self, *arguments: Any, **options: Any) -> str:
        text = super()._render(*arguments, **options)
        if self.options.tool_seconds is None:
            return text
        # The sentence is one that the model was trained on; only the number is ours.
        return _TIME_LIMIT.sub(rf"\g<1>{self.options.tool_seconds:.1f}", text, count=1)

    def _opening(self) -> str:
        return (
            f"<|channel|>analysis<|message|>{self.prompts.opening}" if self.prompts.opening else ""
        )

    def _user_framing(self, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
        return Framing("<|start|>user<|message|>", "", "<|end|><|start|>assistant")

    def _tool_framing(self, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
        head = "<|start|>python to=assistant<|channel|>analysis<|message|>"
        return Framing(head, f"<|end|>{head}", "<|end|><|start|>assistant")


def _last_index(tokens: Sequence[int], token: int) -> int | None:
    """Return the last index of a token, or None if it is not there."""
    return len(tokens) - 1 - tokens[::-1].index(token) if token in tokens else None
