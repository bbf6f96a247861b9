"""The base of all chat formats: prompts and appended messages as token ids.

A running conversation is never rendered again. The chat template renders the prompt once. What the
solver adds later, tool results and the reminder to box the answer, is appended as token ids, framed
as the template would frame it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eightfold.common.valid_text import replace_surrogates

from .prompt_texts import STANDARD, Prompts
from .readers.thought_tags import open_thought
from .readers.turn_reader import Turn, TurnReader
from .template_framing import (
    DECLARATION,
    MARK,
    SYSTEM,
    Framing,
    ProtocolError,
    tool_framing,
    user_framing,
)
from .tool_call import Call, CallText, MalformedCall
from .untrusted_text import UntrustedTextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChatProtocol:
    """A chat format bound to a tokenizer; the base class of all formats.

    A format sets the class attributes, and implements `sign` and `_read_call`.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompts: texts of the prompt.
        end_ids: end tokens of the checkpoint, besides the tokenizer's own one.
        reason: sentences that say which format and prompt were chosen and why.

    Attributes:
        family: name of the format.
        prompt_set: set of default texts for models of this format that write no thoughts.
        pause_tokens: texts of the tokens at which the model waits for a tool's result; empty if it
            ends its turn instead.
        turn_ends: texts of end tokens that checkpoints of this family may not list themselves.
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
    call_mark: str | None = None
    native_tool = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        end_ids: Sequence[int] = (),
        reason: str = "",
    ) -> None:
        self.reason = reason
        self.tokenizer = tokenizer
        eos = tokenizer.eos_token_id
        self.end_ids = frozenset(end_ids) | (frozenset() if eos is None else {int(eos)})
        self.end_ids |= {self._token_id(token) for token in self.turn_ends}
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
        self.prompt_opener = open_thought(prompt.rpartition(MARK)[2]) + prompts.opening
        ends = [self.decode([index]) for index in self.pause_token_ids]
        opening = self._messages(MARK + "U", SYSTEM)
        self._user = user_framing(self._render_marked, opening, ends)
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
        opening = self.prompts.opening
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

    def _read_turn(self, text: str) -> Turn:
        end = self._end_texts.search(text)
        return self._reader.read(text[: end.start()] if end else text, ended=end is not None)

    def _end_pattern(self) -> str:
        """Return the pattern of the tokens at which a turn of the model ends."""
        texts = {
            self.tokenizer.decode([i], skip_special_tokens=False) for i in self.pause_token_ids
        }
        return "|".join(re.escape(text) for text in sorted(texts | {"<eos>"}, key=len) if text)

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
        declared = [(prompts or self.prompts).python_tool()] if tools and self.native_tool else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tools=declared,
                enable_thinking=True,
                add_generation_prompt=head,
                tokenize=False,
            )
        except Exception as error:  # a template can make Jinja raise anything
            raise ProtocolError(f"The checkpoint's chat template fails: {error}.") from error
        return text

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
