"""The base of all chat formats: prompts and appended messages as token ids.

A running conversation is never rendered again. The chat template renders the prompt once. What the
solver adds later, tool results and the reminder to box the answer, is appended as token ids, framed
as the template would frame it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eightfold.common.valid_text import replace_surrogates

from .prompt_texts import STANDARD, Prompts
from .readers.thought_tags import open_thought
from .readers.turn_reader import Turn, TurnReader
from .reading_cadence import unread_tokens
from .template_framing import (
    DECLARATION,
    MARK,
    SYSTEM,
    Framing,
    ProtocolError,
    tool_framing,
    user_framing,
)
from .template_options import NO_OPTIONS, TemplateOptions
from .tool_call import Call, CallText, MalformedCall
from .turn_contents import NO_CALL, EarlyStop, Reply, TurnContents
from .untrusted_text import UntrustedTextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


FENCES = ("```", "~~~")
FENCE_TOKENS = 8  # a fence and what may share its line, in tokens


class ChatProtocol:
    """A chat format bound to a tokenizer; the base class of all formats.

    A format sets the class attributes, and implements `sign` and `_read_call`.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompts: texts of the prompt.
        end_ids: end tokens of the checkpoint, besides the tokenizer's own one.
        reason: sentences that say which format and prompt were chosen and why.
        options: options of the prompt that only some chat templates have.

    Attributes:
        family: name of the format.
        prompt_set: set of default texts for models of this format that write no thoughts.
        pause_tokens: texts of the tokens at which the model waits for a tool's result; empty if it
            ends its turn instead.
        turn_ends: texts of end tokens that checkpoints of this family may not list themselves.
        inner_ends: texts of tokens that end a message, but never the model's turn.
        efforts: True if the chat template knows reasoning efforts.
        call_mark: pattern of the marks that open a call; None if only fenced blocks are calls.
        native_tool: True if the chat template takes the tool's declaration; else the system
            message describes the tool.
        call_id: id of the pause token, or None if there is none.
        pause_token_ids: ids at which a sequence pauses: pause tokens and end tokens.
        prompt_opener, tool_opener, user_opener: opening of a thought that the prompt, a tool result
            or a user turn leaves unclosed, or ""; in the prompt also the text with which the
            model's turn begins. It belongs in front of the text that the model writes next.

    Raises:
        ProtocolError: if the chat template fails or drops messages, or if a token is missing.
    """

    family = ""
    prompt_set = STANDARD
    pause_tokens: tuple[str, ...] = ()
    turn_ends: tuple[str, ...] = ()
    inner_ends: tuple[str, ...] = ()
    efforts = False
    call_mark: str | None = None
    native_tool = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        end_ids: Sequence[int] = (),
        reason: str = "",
        options: TemplateOptions = NO_OPTIONS,
    ) -> None:
        self.reason = reason
        self.options = options
        self.tokenizer = tokenizer
        eos = tokenizer.eos_token_id
        self.end_ids = frozenset(end_ids) | (frozenset() if eos is None else {int(eos)})
        self.end_ids |= {self._token_id(token) for token in self.turn_ends}
        self.end_ids -= {self._token_id(token) for token in self.inner_ends}
        pause_ids = {self._token_id(token) for token in self.pause_tokens}
        self.pause_token_ids = tuple(sorted(pause_ids | self.end_ids))
        self.call_id = min(pause_ids, default=None)
        self._end_texts = re.compile(rf"(?:(?:{self._end_pattern()})\s*)+\Z")
        self._reader = TurnReader(self.call_mark, self._read_call)
        self.prompts = prompts
        self.untrusted_text = UntrustedTextEncoder(tokenizer)
        self._system_role = self._takes_system_role()
        self.native_tool &= bool(prompts.tool)
        prompt = self._render(self._messages(MARK))
        if prompt.count(MARK) != 1:
            raise ProtocolError("The chat template does not show the user's message exactly once.")
        # A template that ignores the tool leaves its description to the system message.
        self.native_tool &= prompt != self._render(self._messages(MARK), tools=False)
        self.prompt_opener = open_thought(prompt.rpartition(MARK)[2]) + self._opening()
        ends = [self.decode([index]) for index in self.pause_token_ids]
        opening = self._messages(MARK + "U", SYSTEM)
        self._user = self._user_framing(opening, ends)
        self.user_opener = open_thought(self._user.after)
        self._tool = self._tool_framing(opening, ends)
        self.tool_opener = open_thought(self._tool.after)

    @classmethod
    def sign(cls, vocabulary: Mapping[str, int], template: str) -> str:
        """Return what shows that a checkpoint uses this format, as a clause, or "" if nothing."""
        raise NotImplementedError

    def system_message(self) -> str:
        """Return the system message, or the text in front of the problem if there is none."""
        if self.native_tool:
            return self.prompts.system
        return f"{self.prompts.system} {self.prompts.fenced}".rstrip()

    def render_prompt(self, problem: str) -> list[int]:
        """Return the token ids of a problem's prompt, up to where the model begins to write.

        Texts of control tokens in the problem are encoded as ordinary text.
        """
        problem = replace_surrogates(problem.strip())
        opening = self._opening()
        if not self.untrusted_text.has_control(problem):
            return self._encode(self._render(self._messages(problem)) + opening)
        before, after = (self._render(self._messages(MARK)) + opening).split(MARK)
        return [
            *self._encode(before),
            *self.untrusted_text.encode(problem),
            *self._encode(after),
        ]

    def tool_response(self, outputs: Sequence[str]) -> list[int]:
        """Return the token ids to append after the pause or end token.

        Args:
            outputs: one text for each call of the turn, in the order of the calls.
        """
        ids = self._encode(self._tool.before)
        for index, output in enumerate(outputs):
            ids += self._encode(self._tool.between) if index else []
            ids += self.untrusted_text.encode(self._tool.escaped(replace_surrogates(output)))
        return ids + self._encode(self._tool.after)

    def nudge(self) -> list[int]:
        """Return the token ids of a user turn that asks for a boxed answer.

        They are appended after an end token.
        """
        ids = self._encode(self._user.before) + self.untrusted_text.encode(self.prompts.nudge)
        return ids + self._encode(self._user.after)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def read_turn(self, opener: str, tokens: Sequence[int]) -> TurnContents:
        """Return the calls and the final text of a turn of the model.

        Args:
            opener: what the turn goes on from, `Turn.opener` of an attempt.
            tokens: token ids of the turn, the one that ended it included.
        """
        text = opener + self.decode(tokens)
        calls = self.parse_calls(text)
        if not calls and tokens and tokens[-1] == self.call_id:
            calls = [NO_CALL]
        return TurnContents(tuple(calls), self.final_text(text))

    def early_stop(self, opener: str, tokens: Sequence[int], new: int) -> EarlyStop | None:
        """Return where a turn that goes on is to be stopped to run its code; None if it is not.

        Models that were trained on code with its output would invent the output next.

        Args:
            opener: as `read_turn`.
            tokens: token ids of the turn so far.
            new: number of them that were not there at the last call.
        """
        # The whole turn is only decoded if a fence may have just been completed.
        ended = any(token in self.pause_token_ids for token in tokens[-1:])
        unread = unread_tokens(len(tokens), new, len(tokens), ended)
        if not unread or not self._ends_with_fence(tokens, unread):
            return None
        text = opener + self.decode(tokens)
        end = self.code_end(text)
        calls = self.parse_calls(text[:end]) if end is not None else []
        if end is None or not calls:
            return None
        return EarlyStop(self._count_tokens(tokens, end - len(opener)), tuple(calls))

    def reply_to_calls(
        self, opener: str, tokens: Sequence[int], outputs: Sequence[str], stopped: bool
    ) -> Reply:
        """Return what to append to a turn after its calls have been run.

        Args:
            opener, tokens: as `read_turn`; the tokens that `early_stop` keeps if it stopped them.
            outputs: one text for each call.
            stopped: True if `early_stop` stopped the turn.
        """
        if stopped:  # the output belongs to the turn, which goes on
            return Reply(tuple(self.code_output(outputs, self.decode(tokens))))
        ids = self.tool_response(outputs)
        # A model may end its turn after a call instead of waiting for the response.
        drop_last = self.call_id is not None and tokens[-1] != self.call_id
        if drop_last and self.call_id is not None:
            ids = [self.call_id, *ids]
        return Reply(tuple(ids), self.tool_opener, drop_last)

    def answer_request(self, opener: str, tokens: Sequence[int]) -> Reply:
        """Return the user turn that asks for a boxed answer after a turn without one.

        Args:
            opener, tokens: as `read_turn`.
        """
        return Reply(tuple(self.nudge()), self.user_opener)

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        """Return the tool calls in one turn of the model's text, in order.

        Calls in the family's own form run wherever they stand; fenced blocks of Python and JSON
        objects that name the tool run if they end the turn without a box. Drafts in a thought that
        the model has closed and gone on from do not.

        Args:
            text: the turn, with the opening of the thought that the prompt left open.
        """
        return self._read_turn(text).calls()

    def final_text(self, text: str) -> str:
        """Return one turn of the model's text without thoughts, calls, code and outputs.

        A thought that is not closed hides everything from its start on.
        """
        return self._read_turn(text).visible()

    def code_end(self, text: str) -> int | None:
        """Return the index at which the model must be stopped, right behind a closing fence.

        That is the fence of the first complete block of Python outside thoughts and calls. Models
        that write the output of their code themselves are stopped there, the sequence is rewound to
        this index, and `code_output` follows. Only text that holds a fence can have such an index,
        so there is no need to ask before three backticks or tildes have been written.

        Args:
            text: the turn so far, with the opening of the thought that the prompt left open.
        """
        if "```" not in text and "~~~" not in text:
            return None
        return self._reader.read(text, ended=False).code_end()

    def code_output(self, outputs: Sequence[str], kept: str = "") -> list[int]:
        """Return the token ids that follow a rewind to `code_end`, in the same turn of the model.

        Args:
            outputs: one text for each call.
            kept: what the rewound turn holds. A token may hold more than the end of the fence; if
                that is a line break, none is added.
        """
        ids: list[int] = []
        for output in outputs:
            fence = "```"
            while fence in output:
                fence += "`"
            ids += self._encode(f"{'' if kept.endswith(chr(10)) else chr(10)}{fence}output\n")
            ids += self.untrusted_text.encode(output.removesuffix("\n"))
            ids += self._encode(f"\n{fence}\n")
            kept = "\n"
        return ids

    def _read_call(self, text: str, start: int) -> CallText | None:
        """Return the calls behind the mark at `start`, or None if the mark is only mentioned."""
        raise NotImplementedError

    def _ends_with_fence(self, tokens: Sequence[int], new: int) -> bool:
        """Return True if a fence stands in the last `new` tokens or just in front of them."""
        tail = self.decode(tokens[-FENCE_TOKENS - new :])
        return any(fence in tail for fence in FENCES)

    def _count_tokens(self, tokens: Sequence[int], length: int) -> int:
        """Return how many of the tokens it takes to write `length` characters."""
        lengths = range(1, len(tokens))
        return 1 + bisect_left(lengths, length, key=lambda n: len(self.decode(tokens[:n])))

    def _read_turn(self, text: str) -> Turn:
        end = self._end_texts.search(text)
        return self._reader.read(text[: end.start()] if end else text, ended=end is not None)

    def _end_pattern(self) -> str:
        """Return the pattern of the tokens at which a turn of the model ends."""
        texts = {
            self.tokenizer.decode([i], skip_special_tokens=False) for i in self.pause_token_ids
        }
        return "|".join(re.escape(text) for text in sorted(texts | {"<eos>"}, key=len) if text)

    def _opening(self) -> str:
        """Return the text with which the model's turn begins, as the format frames it."""
        return self.prompts.opening

    def _takes_system_role(self) -> bool:
        messages = [{"role": "system", "content": MARK}, {"role": "user", "content": "1"}]
        try:
            return MARK in self._render(messages)
        except ProtocolError:
            return False

    def _messages(self, problem: str, system: str | None = None) -> list[dict[str, Any]]:
        if system is None:
            system = self.system_message()
        if self.prompts.request:
            problem = f"{problem}\n\n{self.prompts.request}"
        if self._system_role:
            return [{"role": "system", "content": system}, {"role": "user", "content": problem}]
        return [{"role": "user", "content": f"{system}\n\n{problem}"}]

    def _render(
        self,
        messages: list[dict[str, Any]],
        tools: bool = True,
        prompts: Prompts | None = None,
        head: bool = True,
    ) -> str:
        declared = (prompts or self.prompts) if tools and self.native_tool else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=head,
                tokenize=False,
                **self._template_arguments(declared),
            )
        except Exception as error:  # a template can make Jinja raise anything
            raise ProtocolError(f"The checkpoint's chat template fails: {error}.") from error
        return text

    def _template_arguments(self, declared: Prompts | None) -> dict[str, Any]:
        """Return what the chat template is given besides the messages.

        Args:
            declared: texts with the tool's description; None declares no tool.
        """
        tools = None if declared is None else [declared.python_tool()]
        return {"tools": tools, "enable_thinking": True}

    def _render_marked(self, messages: list[dict[str, Any]], tools: bool, head: bool) -> str:
        return self._render(messages, tools, replace(self.prompts, tool=DECLARATION), head)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def _token_id(self, token: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(token)
        if index is None or index == self.tokenizer.unk_token_id:
            raise ProtocolError(f"The tokenizer has no token {token}, which {self.family} needs.")
        return int(index)

    def _user_framing(self, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
        """Return the framing of a user turn; arguments as `_tool_framing`."""
        return user_framing(self._render_marked, opening, ends)

    def _tool_framing(self, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
        """Return the framing of tool results: the template's own one, else user turns.

        Args:
            opening: marked messages that open a conversation.
            ends: texts of the tokens at which the model ends its turn.
        """
        framing = tool_framing(self._render_marked, opening, ends) if self.native_tool else None
        if framing is not None:
            return framing
        fences = "Output:\n```\n", "\n```"
        return Framing(
            self._user.before + fences[0],
            f"{fences[1]}\n{fences[0]}",
            fences[1] + self._user.after,
        )
