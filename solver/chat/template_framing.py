"""Reads how a chat template frames messages that are appended to a conversation.

The framing is read from renderings of small conversations whose texts are marks. The model has
written the end of its turn itself, so what is appended begins behind the template's last end token
in front of the message; templates that close a turn twice thus cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "EIGHTFOLDMARK"
"""Placeholder for a message's text while the framing around it is read from the chat template."""

SYSTEM, DECLARATION = MARK + "S", MARK + "D"
"""Placeholders for the system message and for the tool's description, never to be repeated."""

PROBE = '"\n\\éZ'
"""End of a placeholder that shows how a template escapes a tool result."""

CALL_ID = "call00000"
"""Id of every call, since models write none; Mistral's templates want nine characters."""

Render = Callable[[list[dict[str, Any]], bool, bool], str]
"""Renders messages; raises ProtocolError if that fails.

Its flags are whether the tool is declared, and whether the head of the model's turn follows.
"""


class ProtocolError(ValueError):
    """The chat template or the tokenizer cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class Framing:
    """The text around appended messages.

    Attributes:
        before: text in front of the first message; it follows the token that ended the turn.
        between: text between two messages.
        after: text behind the last message, up to where the model continues.
        escapes: JSON escapes of the messages: () for none, else the value of `ensure_ascii` for
            each time that the template turns a message into JSON.
    """

    before: str
    between: str
    after: str
    escapes: tuple[bool, ...] = ()

    def escaped(self, text: str) -> str:
        """Return a message's text as the template would show it."""
        for ascii_only in self.escapes:
            text = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        return text


def user_framing(render: Render, opening: list[dict[str, Any]], ends: Sequence[str]) -> Framing:
    """Return the framing of a user turn.

    Args:
        render: renders messages.
        opening: first messages of the conversation, the last one from the user.
        ends: texts of the model's end tokens.

    Raises:
        ProtocolError: if the template fails or drops messages.
    """
    answer = {"role": "assistant", "content": MARK + "A"}
    extra = {"role": "user", "content": MARK + "B"}
    error: ProtocolError | None = None
    for messages, tools in ((opening, True), (opening[-1:], False)):
        try:
            text = render([*messages, answer, extra], tools, True)
        except ProtocolError as fault:
            error = error or fault
            continue
        before, found, after = text.rpartition(MARK + "A")[2].partition(MARK + "B")
        if found and not _repeats(before + after):
            return Framing(_behind_end(before, ends), "", after)
    raise error or ProtocolError("The chat template drops messages of a longer conversation.")


def tool_framing(
    render: Render, opening: list[dict[str, Any]], ends: Sequence[str]
) -> Framing | None:
    """Return the framing of tool results, or None if the template has none.

    Templates differ in what they accept: two calls or one, arguments as a mapping or as text, an
    empty text beside the call or none. What the first accepted rendering shows is taken.
    """
    for messages, tools in ((opening, True), (opening[-1:], False)):
        for calls, results in ((2, 2), (1, 2), (1, 1)):
            for arguments in ({"code": MARK + "C"}, json.dumps({"code": MARK + "C"})):
                for content in ("", None):
                    turn = [_calling(calls, arguments, content), *_results(results)]
                    framing = _framing_of(render, messages, tools, turn, results, ends)
                    if framing is not None:
                        return framing
    return None


def _calling(calls: int, arguments: Any, content: str | None) -> dict[str, Any]:
    function = {"name": "python", "arguments": arguments}
    made = [{"id": CALL_ID, "type": "function", "function": function}] * calls
    return {"role": "assistant", "content": content, "tool_calls": made}


def _results(results: int) -> list[dict[str, Any]]:
    return [
        {
            "role": "tool",
            "name": "python",
            "tool_call_id": CALL_ID,
            "content": MARK + "AB"[n] + PROBE,
        }
        for n in range(results)
    ]


def _framing_of(
    render: Render,
    opening: list[dict[str, Any]],
    tools: bool,
    turn: list[dict[str, Any]],
    results: int,
    ends: Sequence[str],
) -> Framing | None:
    """Return the framing that one rendering shows, or None if it shows none."""
    try:
        text = render([*opening, *turn], tools, True)
    except ProtocolError:
        return None
    head, found, tail = text.partition(MARK + "A")
    escapes = _escapes(tail)
    if not found or escapes is None:
        return None
    probe = Framing("", "", "", escapes).escaped(PROBE)
    between, after = "\n", tail[len(probe) :]
    if results > 1:
        between, found, after = after.partition(MARK + "B" + probe)
        if not found:
            return None
    # What the assistant wrote is shown last in front of the result, if it is shown at all.
    before = head[max(0, *(head.rfind(MARK + mark) for mark in "UC")) :]
    if _repeats(before + between + after):
        return None
    if not any(end in before for end in ends):
        before = _appended(render, opening, tools, turn, head)
    return Framing(_behind_end(before, ends), between, after, escapes)


def _appended(
    render: Render,
    opening: list[dict[str, Any]],
    tools: bool,
    turn: list[dict[str, Any]],
    head: str,
) -> str:
    """Return what the first result adds to a conversation whose turns have no end token."""
    try:
        shorter = render([*opening, turn[0]], tools, False)
    except ProtocolError:
        return ""
    same = 0
    while same < min(len(head), len(shorter)) and head[same] == shorter[same]:
        same += 1
    return head[same:]


def _escapes(tail: str) -> tuple[bool, ...] | None:
    """Return how the text behind a mark shows `PROBE`, or None if in no known way."""
    for escapes in ((), (False,), (True,), (False, False), (True, True)):
        if tail.startswith(Framing("", "", "", escapes).escaped(PROBE)):
            return escapes
    return None


def _repeats(text: str) -> bool:
    return SYSTEM in text or DECLARATION in text


def _behind_end(text: str, ends: Sequence[str]) -> str:
    """Return what follows the last end token in `text`."""
    cuts = [text.rfind(end) + len(end) for end in ends if end and end in text]
    return text[max(cuts, default=0) :]
