"""Conversations without a tool: whatever a model writes, nothing is run."""

from __future__ import annotations

from typing import Any

from ..chat_protocol import ChatProtocol
from ..tool_call import Call, MalformedCall


class PlainFormat(ChatProtocol):
    """Neither prompt nor template mentions a tool, and code is part of the text.

    For any checkpoint, if `SolverConfig.tool` is False.
    """

    family = "plain"
    native_tool = False

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        return []

    def code_end(self, text: str) -> int | None:
        return None

    def _messages(self, problem: str, system: str | None = None) -> list[dict[str, Any]]:
        return super()._messages(problem, self.prompts.plain if system is None else system)
