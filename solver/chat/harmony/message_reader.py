"""The state machine that cuts token ids into Harmony messages.

It knows two states, in a header and in a body, and moves on control tokens alone; text never moves
it. Tokens begin in the header of a message of the assistant, as behind a prompt:

    state   token                              next state
    header  <|channel|>, <|constrain|>         header; what follows is the channel or the type
    header  <|message|>                        body
    header  <|start|>                          header of another message
    header  an end token                       header; what stood there is the text of a message
    body    an end token                       header
    body    <|start|>, <|channel|>             header; the message is closed without an end token
    any     any other                          the same

There is no state without a way on, and no sequence of ids that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .harmony_vocabulary import TURN_ENDS, Control, HarmonyVocabulary
from .message_header import (
    ASSISTANT,
    MessageHeader,
    read_header,
    split_channel,
    split_recipient,
    split_role,
)

ENDS = (Control.END, *TURN_ENDS)
HEADER_WORDS = 4  # words in front of a channel that can be those of a header


@dataclass(frozen=True)
class HarmonyMessage:
    """A message that has been read.

    Attributes:
        header: its header.
        text: its content.
        start: index of the first token of its header.
        body: index of the first token of its content.
        stop: index behind the last token of its content.
        closed_by: control token that ended it; None if it is still being written.
        notes: what was out of order in it, a clause each.
    """

    header: MessageHeader
    text: str
    start: int
    body: int
    stop: int
    closed_by: Control | None
    notes: tuple[str, ...] = ()

    @property
    def from_model(self) -> bool:
        """True if the assistant is its author."""
        return self.header.role == ASSISTANT


@dataclass
class _Draft:
    """A message that is being read.

    Attributes:
        start: index of its first token.
        begun: False if no start token opens it.
        parts: the parts of its header: the control token in front, None for the first, and text.
        body: index of the first token of its content; None as long as it is in its header.
        notes: what was out of order.
    """

    start: int
    begun: bool
    parts: list[tuple[Control | None, str]] = field(default_factory=lambda: [(None, "")])
    body: int | None = None
    notes: list[str] = field(default_factory=list)

    def texts(self, kind: Control | None) -> list[str]:
        """Return the texts of the header behind control tokens of this kind."""
        return [text for found, text in self.parts if found is kind]

    def write(self, text: str) -> None:
        """Add text to the last part of the header."""
        kind, before = self.parts[-1]
        self.parts[-1] = kind, before + text


class MessageReader:
    """Reads messages; see the module's docstring.

    Args:
        vocabulary: ids of the control tokens, and the text of all others.
    """

    def __init__(self, vocabulary: HarmonyVocabulary) -> None:
        self.vocabulary = vocabulary

    def read(self, tokens: Sequence[int]) -> list[HarmonyMessage]:
        """Return the messages of token ids, the one that is not closed included."""
        return list(self._messages(tokens))

    def _messages(self, tokens: Sequence[int]) -> Iterator[HarmonyMessage]:
        control = self.vocabulary.control
        draft, at = _Draft(0, begun=True), 0
        draft.write(f"{ASSISTANT} ")  # the role that the prompt has begun the header with
        for index in [i for i, token in enumerate(tokens) if token in control]:
            kind = control[tokens[index]]
            if draft.body is None:
                draft.write(self.vocabulary.text(tokens[at:index]))
            at = index + 1
            closes = kind in ENDS or kind is Control.START
            if closes or (draft.body is not None and kind is Control.CHANNEL):
                yield from self._close(tokens, draft, index, kind)
                draft = _Draft(index + (kind in ENDS), begun=kind not in ENDS)
            if kind is Control.MESSAGE and draft.body is None:
                yield from _prose(draft, index)
                draft.body = at
            elif kind is Control.CHANNEL or (kind is Control.CONSTRAIN and draft.body is None):
                draft.parts.append((kind, ""))
            elif not closes:
                draft.notes.append(f"{kind} where it means nothing")
        if draft.body is None:
            draft.write(self.vocabulary.text(tokens[at:]))
        yield from self._close(tokens, draft, len(tokens), None)

    def _close(
        self, tokens: Sequence[int], draft: _Draft, stop: int, kind: Control | None
    ) -> Iterator[HarmonyMessage]:
        """Yield the message in front of index `stop`, unless nothing has been written."""
        if draft.body is None:
            yield from _headless(draft, stop, kind)
            return
        header = read_header(
            draft.texts(None)[0], draft.texts(Control.CHANNEL), draft.texts(Control.CONSTRAIN)
        )
        text = self.vocabulary.text(tokens[draft.body : stop])
        notes = [*header.notes, *draft.notes]
        if not draft.begun:
            notes.append("no start token in front of the header")
        if kind is not None and kind not in ENDS:
            notes.append("the message has no end token")
        if "\ufffd" in text:
            notes.append("the content is not valid UTF-8")
        yield HarmonyMessage(header, text, draft.start, draft.body, stop, kind, tuple(notes))


def _headless(draft: _Draft, stop: int, kind: Control | None) -> Iterator[HarmonyMessage]:
    """Yield what was written in a header that no content follows; its words are the content."""
    role, text = split_role(draft.texts(None)[0])
    channel = None
    for part in draft.texts(Control.CHANNEL):
        named, rest = split_channel(part)
        channel, text = named or channel, f"{text} {rest}"
    recipient, text = split_recipient(text)
    if not text.strip() and (kind is None or not draft.begun):
        return  # the beginning of a header, or nothing between two messages
    note = "a header without content" if draft.begun else "text behind an end token"
    header = MessageHeader(role, channel, recipient)
    notes = (note, *draft.notes)
    yield HarmonyMessage(header, text.strip(), draft.start, stop, stop, kind, notes)


def _prose(draft: _Draft, stop: int) -> Iterator[HarmonyMessage]:
    """Yield the text that stands between an end token and a header without a start token."""
    before = draft.texts(None)[0]
    if draft.begun or len(before.split()) <= HEADER_WORDS:
        return
    note = "text behind an end token"
    yield HarmonyMessage(MessageHeader(), before, draft.start, stop, stop, Control.MESSAGE, (note,))
    draft.parts[0], draft.start = (None, ""), stop
