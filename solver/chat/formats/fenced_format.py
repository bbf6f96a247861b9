"""The fallback format, for checkpoints whose own format of tool calls is not known."""

from __future__ import annotations

from ..chat_protocol import ChatProtocol
from ..prompt_texts import PROGRAM_FIRST


class FencedFormat(ChatProtocol):
    """A fenced block of Python at the end of a turn is a call; its output comes as a user turn.

    A block that a box follows is part of the answer and is not run.
    """

    family = "fenced"
    prompt_set = PROGRAM_FIRST
    native_tool = False
