"""A recorded attempt as a conversation: thoughts, text, calls with their outputs, and notes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..chat.readers import thought_tags


class Kind(StrEnum):
    """The kind of a piece of a conversation."""

    THOUGHT = "thought"
    TEXT = "text"
    CALL = "call"
    NOTE = "note"


@dataclass(frozen=True)
class Piece:
    """A piece of a conversation.

    Attributes:
        kind: what it is.
        text: its text; the code of a call, or "" if the call could not be read.
        call: the record of a call, with its status, seconds and output; None for other kinds.
    """

    kind: Kind
    text: str
    call: dict[str, Any] | None = None


_MARK = re.compile(
    r'<\|?tool_call\|?>|\[TOOL_CALLS\]|<\|python_tag\|>|<[|｜]\w+[|｜]>|`{3,}|~{3,}|\{\s*"'
    r"|<function|<parameter"
)
_CLOSERS = re.compile(
    r"""(?:\s*(?:<\|"\|>|\\?["}\])]|`{3,}|~{3,}|</?[|｜]?[\w▁=]{1,40}[|｜]?>))*"""
)
_TRAILING_TOKENS = re.compile(
    r"(?:\s*(?:<\|[^<>\s]{1,40}>|<[^<>\s|]{1,40}\|>|<｜[^<>\s]{1,40}｜>|</s>|<eos>"
    r"|<end_of_turn>))+\s*\Z"
)
_MESSAGE = re.compile(
    r"(?P<header>(?:(?!<\|message\|>).)*)<\|message\|>"
    r"(?P<content>.*?)(?:<\|(?:end|call|return|endoftext)\|>|(?=<\|(?:start|channel)\|>)|\Z)",
    re.DOTALL,
)
"""A message of the Harmony format."""

_CHANNEL_NAME = re.compile(r"\A\s*(?:thought|analysis|commentary)\b[ ]*\n?")
_TAIL = 400  # characters at the end of a turn in which its end tokens are looked for
_MARK_DISTANCE = 200  # characters between the mark of a call and its code


def pieces_of(turns: Sequence[dict[str, Any]]) -> list[Piece]:
    """Return an attempt's conversation, without the problem at its beginning.

    Args:
        turns: the recorded turns; keys that a turn lacks count as empty.
    """
    found = []
    for turn in turns:
        found += turn_pieces(turn)
        found += [Piece(Kind.NOTE, f"Out of order: {note}.") for note in turn.get("notes", ())]
        if turn.get("appended") and not turn.get("calls"):
            found.append(Piece(Kind.NOTE, "The solver asked for the answer in a box."))
    return found


def turn_pieces(turn: dict[str, Any]) -> list[Piece]:
    """Return the pieces of one turn.

    A call stands where its code stands in the text, in the place of the markup around it. If the
    code is not found, because the format encodes it, the call follows the text.
    """
    spans = split_thoughts(f"{turn.get('opener', '')}{turn.get('text', '')}")
    # For each span its calls, as (start, end, record).
    cuts: list[list[tuple[int, int, dict[str, Any]]]] = [[] for _ in spans]
    lost = []
    order = sorted(range(len(spans)), key=lambda i: spans[i][0] is Kind.THOUGHT)
    for call in turn.get("calls", ()):
        for index in order:
            start = cuts[index][-1][1] if cuts[index] else 0
            place = _code_place(spans[index][1], call["code"], start)
            if place is not None:
                cuts[index].append((*place, call))
                break
        else:
            lost.append(Piece(Kind.CALL, call["code"] or "", call))
    found: list[Piece] = []
    for (kind, text), calls in zip(spans, cuts, strict=True):
        at = 0
        for start, end, call in calls:
            found += _written(kind, text[at:start])
            found.append(Piece(Kind.CALL, call["code"], call))
            at = end
        found += _written(kind, text[at:])
    return [*found, *lost]


def visible_text(turn: dict[str, Any]) -> str:
    """Return what a turn says outside thoughts and calls."""
    return "\n".join(piece.text for piece in turn_pieces(turn) if piece.kind is Kind.TEXT)


def split_thoughts(text: str) -> list[tuple[Kind, str]]:
    """Cut a turn at the tags around its thoughts, which are left out.

    A closing tag without an opening ends a thought that began with the turn. A thought that is not
    closed reaches to the end. Messages of the Harmony format lose their headers; thoughts are those
    in its channel `analysis` that call no tool.
    """
    if "<|message|>" in text:
        return _split_messages(text)
    found: list[tuple[Kind, str]] = []
    at = 0
    first_opening = thought_tags.OPENING.search(text)
    first_closing = thought_tags.CLOSING.search(text)
    if first_closing and (not first_opening or first_closing.start() < first_opening.start()):
        found.append((Kind.THOUGHT, text[: first_closing.start()]))
        at = first_closing.end()
    while opening := thought_tags.OPENING.search(text, at):
        found.append((Kind.TEXT, text[at : opening.start()]))
        closing = thought_tags.closing_of(opening[0]).search(text, opening.end())
        found.append((Kind.THOUGHT, text[opening.end() : closing.start() if closing else None]))
        at = closing.end() if closing else len(text)
    return [*found, (Kind.TEXT, text[at:])]


def _split_messages(text: str) -> list[tuple[Kind, str]]:
    """Cut a turn of the Harmony format into its messages, and what stands between them."""
    found: list[tuple[Kind, str]] = []
    at = 0
    for message in _MESSAGE.finditer(text):
        outside, mark, header = message["header"].partition("<|")
        if mark and outside.strip().lower() not in ("", "assistant"):
            found.append((Kind.TEXT, outside))
        thought = "analysis" in header and "to=" not in message["header"]
        found.append((Kind.THOUGHT if thought else Kind.TEXT, message["content"]))
        at = message.end()
    return [*found, (Kind.TEXT, text[at:])]


def _code_place(text: str, code: str | None, start: int) -> tuple[int, int] | None:
    """Return where a call stands in the text, with the markup around its code, or None."""
    if not code or not code.strip():
        return None
    for written in (code, code.strip(), json.dumps(code)[1:-1], json.dumps(code.strip())[1:-1]):
        at = text.find(written, start)
        if at >= 0:
            closers = _CLOSERS.match(text, at + len(written))
            end = closers.end() if closers else at + len(written)
            mark = _MARK.search(text, max(start, at - _MARK_DISTANCE), at)
            return (mark.start() if mark else at), end
    return None


def _written(kind: Kind, text: str) -> list[Piece]:
    """Return what the model wrote as a piece, or nothing if only control tokens are left."""
    text = text.rstrip()
    tail = max(0, len(text) - _TAIL)
    text = text[:tail] + _TRAILING_TOKENS.sub("", text[tail:])
    if kind is Kind.THOUGHT:
        text = _CHANNEL_NAME.sub("", text)
    text = text.strip("\r\n ")
    return [Piece(kind, text)] if text else []
