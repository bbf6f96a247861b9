"""Reads the header of a Harmony message: role, recipient, channel and content type.

Grammar of a header as models write it; everything but the role may be missing, a recipient may
stand in both places, and words that fit nowhere are noted and left out:

    header  := role recipient? ("<|channel|>" channel recipient?)? ("<|constrain|>"? type)?
    role    := "assistant" | "user" | "system" | "developer" | a tool's name
    recipient := "to=" NAME
    channel := "analysis" | "commentary" | "final"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..tool_call import is_tool_name

ASSISTANT = "assistant"
OTHER_ROLES = ("user", "system", "developer", "tool")
CHANNELS = ("analysis", "commentary", "final")
CONTENT_TYPES = ("code", "json", "text", "python")

# The space in front may be missing, as in `analysisto=python`.
_RECIPIENT = re.compile(
    r"(?:\b|(?<=analysis)|(?<=commentary)|(?<=final)|(?<=assistant))to\s*=\s*([^\s<>|=]+)"
)
_RECIPIENT_HEAD = re.compile(rf"\s*{_RECIPIENT.pattern}(?:\s*(?:{'|'.join(CONTENT_TYPES)})\b)?")
_GLUED = re.compile(r"(i?python3?)(?:code|json)", re.IGNORECASE)
_CHANNEL = re.compile(r"\s*(analysis|commentary|final)(?!(?!to\s*=)[a-z])", re.IGNORECASE)
_STRAY_CHANNEL = re.compile(r"(analysis|commentary|final)", re.IGNORECASE)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class MessageHeader:
    """The header of a message.

    Attributes:
        role: author of the message, "assistant" unless another one is plainly named.
        channel: one of `CHANNELS`, or None if the header names none of them.
        recipient: name behind `to=`, or None.
        content_type: type of the content, such as "code", or "".
        notes: what was out of order in the header, a clause each.
    """

    role: str = ASSISTANT
    channel: str | None = None
    recipient: str | None = None
    content_type: str = ""
    notes: tuple[str, ...] = ()

    @property
    def tool(self) -> str | None:
        """The tool that the message calls, or None if it is for a person or for nobody."""
        if self.role != ASSISTANT or self.recipient is None:
            return None
        addressee = self.recipient.lower()
        nobody = (ASSISTANT, *OTHER_ROLES[:3], *CHANNELS, "all")
        return None if addressee in nobody else self.recipient


def read_header(before: str, channels: Sequence[str], types: Sequence[str]) -> MessageHeader:
    """Read the texts between the control tokens of a header.

    Args:
        before: text in front of the first channel token, which holds the role.
        channels: text behind each channel token.
        types: text behind each constrain token.
    """
    notes: list[str] = []
    recipients = [
        _tool_name(name)
        for text in (before, *channels, *types)
        for name in _RECIPIENT.findall(text)
    ]
    recipient = next((name for name in recipients if is_tool_name(name)), None)
    if recipient is None and recipients:
        recipient = recipients[0]
    if len(set(recipients)) > 1:
        notes.append(f"the header names {len(set(recipients))} recipients")
    before = _RECIPIENT.sub(" ", before)
    role, rest = split_role(before)
    if rest == before and rest.strip() and (recipient or "").lower() == ASSISTANT:
        role, rest = rest.split()[0].lower(), ""  # a tool that does not exist
    words = _WORD.findall(rest)
    channel = None
    for text in channels:
        named, rest = split_channel(_RECIPIENT.sub(" ", text))
        channel = named or channel
        words += _WORD.findall(rest)
    if len(channels) > 1:
        notes.append(f"the header has {len(channels)} channel tokens")
    words += [word for text in types for word in _WORD.findall(_RECIPIENT.sub(" ", text))]
    if channel is None and role == ASSISTANT:
        stray = _STRAY_CHANNEL.search(" ".join(words))
        channel = stray[1].lower() if stray else None
        notes.append(
            f"the channel {channel} has no token" if stray else "the header names no channel"
        )
    content_type = next((w.lower() for w in words if w.lower() in CONTENT_TYPES), "")
    extra = [word for word in words if word.lower() not in CONTENT_TYPES]
    if extra and role == ASSISTANT:
        notes.append(f"the header has words that mean nothing: {' '.join(extra)[:60]}")
    return MessageHeader(role, channel, recipient, content_type, tuple(notes))


def _tool_name(name: str) -> str:
    """Return the name of a recipient without what is stuck to it."""
    name = re.sub(r"^\W+|\W+$", "", name) or name
    glued = _GLUED.fullmatch(name)
    return glued[1] if glued else name


def split_role(text: str) -> tuple[str, str]:
    """Return the role that a text begins with, the assistant's if it names none, and the rest."""
    word = _WORD.search(text)
    first = word[0].lower() if word else ASSISTANT
    known = first == ASSISTANT or first in OTHER_ROLES or is_tool_name(first)
    if not known and not first.startswith("functions."):
        return ASSISTANT, text
    return first, text[word.end() :] if word else ""


def split_channel(text: str) -> tuple[str | None, str]:
    """Return the channel that a text begins with, None if it names none, and the rest."""
    named = _CHANNEL.match(text)
    return (named[1].lower(), text[named.end() :]) if named else (None, text)


def split_recipient(text: str) -> tuple[str | None, str]:
    """Return the recipient that a text begins with, None if it names none, and the rest.

    A content type behind the recipient is no part of the rest.
    """
    named = _RECIPIENT_HEAD.match(text)
    return (_tool_name(named[1]), text[named.end() :]) if named else (None, text)
