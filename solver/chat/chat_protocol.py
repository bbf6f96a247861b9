"""What every checkpoint family shares: prompts and appended messages as token ids.

A running conversation is never rendered again: the prompt comes from the chat template once, and
what the solver adds later (tool results, a nudge) is appended as raw tokens in the template's own
framing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eightfold.common.valid_text import replace_surrogates

from .prompt_texts import Prompts
from .tool_call import Call, MalformedCall
from .untrusted_text import PlainText

MARK = "EIGHTFOLDMARK"
"""Stands for the text of a message while the framing around it is read off the chat template."""


class ProtocolError(ValueError):
    """The chat template cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Framing:
    """What surrounds an appended message: `before` starts after the token that ended the turn."""

    before: str
    between: str
    after: str


class Protocol:
    """One family's format, bound to a tokenizer.

    Attributes:
        pause_tokens: text of the token at which the model awaits a result, none where it is the
            end token; `call_id` is its id.
        turn_ends: texts of end tokens that the family's checkpoints may not name themselves.
        pause_token_ids: ids at which a sequence pauses: those, and the checkpoint's end tokens.
        prompt_opener, tool_opener, user_opener: text of a thought that the prompt, a tool result
            or a user turn leaves open ("" where none); it belongs in front of what the model then
            writes.
    """

    family = ""
    pause_tokens: tuple[str, ...] = ()
    turn_ends: tuple[str, ...] = ()
    thought: tuple[str, str] = ("<think>", "</think>")
    native_tool = True

    def __init__(self, tokenizer: Any, prompts: Prompts, end_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        eos = tokenizer.eos_token_id
        self.end_ids = frozenset(end_ids) | (frozenset() if eos is None else {int(eos)})
        self.end_ids |= {self._token_id(token) for token in self.turn_ends}
        own = {self._token_id(token) for token in self.pause_tokens}
        self.pause_token_ids = tuple(sorted(own | self.end_ids))
        self.call_id = min(own, default=None)
        self.prompts = prompts
        self.plain = PlainText(tokenizer)
        self._system_role = self._takes_system_role()
        prompt = self._render(self._messages(MARK))
        if prompt.count(MARK) != 1:
            raise ProtocolError("The chat template does not show the user's message exactly once.")
        self.prompt_opener = self._open_thought(prompt)
        self._user = self._user_framing()
        self.user_opener = self._open_thought(self._user.after)
        self._tool = self._tool_framing()
        self.tool_opener = self._open_thought(self._tool.after)

    def render_prompt(self, problem: str) -> list[int]:
        """Token ids of the whole prompt for a problem, up to where the model starts to write.

        Strings of control tokens inside the problem are encoded as plain text.
        """
        problem = replace_surrogates(problem.strip())
        if not self.plain.has_control(problem):
            return self._encode(self._render(self._messages(problem)))
        before, after = self._render(self._messages(MARK)).split(MARK)
        return [*self._encode(before), *self.plain.encode(problem), *self._encode(after)]

    def tool_response(self, outputs: Sequence[str]) -> list[int]:
        """Token ids to append after the pause or end token: one result per call, in order."""
        ids = self._encode(self._tool.before)
        for index, output in enumerate(outputs):
            ids += self._encode(self._tool.between) if index else []
            ids += self.plain.encode(output)
        return ids + self._encode(self._tool.after)

    def nudge(self) -> list[int]:
        """Token ids of the user turn that asks for a boxed answer, to append after an end token."""
        ids = self._encode(self._user.before) + self.plain.encode(self.prompts.nudge)
        return ids + self._encode(self._user.after)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of model tokens, control tokens kept."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        """The tool calls in one turn of the model's text, in order; `[]` where it made none."""
        raise NotImplementedError

    def final_text(self, text: str) -> str:
        """The final channel of a turn: its text without thoughts and tool calls.

        A thought that is still open hides everything after its start.
        """
        opening, closing = map(re.escape, self.thought)
        text = re.sub(rf"{opening}.*?(?:{closing}|\Z)", "", text, flags=re.DOTALL)
        return text.split(self.thought[1])[-1]

    def _takes_system_role(self) -> bool:
        messages = [{"role": "system", "content": MARK}, {"role": "user", "content": "1"}]
        try:
            return MARK in self._render(messages)
        except ProtocolError:
            return False

    def _messages(self, problem: str) -> list[dict[str, Any]]:
        system = self.prompts.system
        if not self.native_tool:
            system = f"{system} {self.prompts.fenced}"
        if self._system_role:
            return [{"role": "system", "content": system}, {"role": "user", "content": problem}]
        return [{"role": "user", "content": f"{system}\n\n{problem}"}]

    def _render(self, messages: list[dict[str, Any]]) -> str:
        tools = [self.prompts.python_tool()] if self.native_tool else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tools=tools,
                enable_thinking=True,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:  # jinja raises anything a template asks it to
            raise ProtocolError(f"The checkpoint's chat template fails: {error}.") from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def _token_id(self, token: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(token)
        if index is None or index == self.tokenizer.unk_token_id:
            raise ProtocolError(f"The tokenizer has no token {token}, which {self.family} needs.")
        return int(index)

    def _open_thought(self, text: str) -> str:
        """The tail of `text` from an unclosed thought's start, or ""."""
        start = text.rfind(self.thought[0])
        return text[start:] if start >= 0 and self.thought[1] not in text[start:] else ""

    def _user_framing(self) -> Framing:
        answer = {"role": "assistant", "content": MARK + "A"}
        extra = {"role": "user", "content": MARK + "B"}
        text = self._render([*self._messages("1"), answer, extra])
        return self._framing(text, MARK + "A", [MARK + "B"])

    def _tool_framing(self) -> Framing:
        raise NotImplementedError

    def _framing(self, text: str, turn: str, marks: list[str]) -> Framing:
        """Reads the framing between a turn that ends with `turn` and the messages in `marks`."""
        parts = [text.rpartition(turn)[2]]
        for mark in marks:
            head, found, tail = parts.pop().partition(mark)
            if not found:
                raise ProtocolError("The chat template drops messages of a longer conversation.")
            parts += [head, tail]
        # The sampled end token stands for the template's own one, which therefore comes off.
        before = parts[0].lstrip(" \n")
        for token in self.tokenizer.convert_ids_to_tokens(sorted(self.end_ids)):
            if token and before.startswith(token):
                before = before.removeprefix(token)
                break
        return Framing(before, parts[1] if len(parts) > 2 else "", parts[-1])
