"""An attempt as the messages of a conversation, as chat templates take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.conversation import Kind, turn_pieces

Message = dict[str, Any]


def attempt_messages(problem: str, turns: Sequence[dict[str, Any]]) -> list[Message]:
    """Return a problem and an attempt at it as messages.

    A turn of the model becomes a message of the assistant with its text, `reasoning_content`, and
    `tool_calls` of the tool `python`; each call's output becomes a message of the tool. Markup of
    the chat format is left out.

    Args:
        problem: text of the problem.
        turns: the recorded turns.
    """
    messages: list[Message] = [{"role": "user", "content": problem}]
    count = 0
    for turn in turns:
        pieces = turn_pieces(turn)
        texts = {
            kind: "\n\n".join(piece.text for piece in pieces if piece.kind is kind)
            for kind in (Kind.TEXT, Kind.THOUGHT)
        }
        message: Message = {"role": "assistant", "content": texts[Kind.TEXT]}
        if texts[Kind.THOUGHT]:
            message["reasoning_content"] = texts[Kind.THOUGHT]
        calls = [piece.call for piece in pieces if piece.call is not None]
        results = []
        for call in calls:
            count += 1
            function = {"name": "python", "arguments": {"code": call["code"] or ""}}
            one = {"id": f"call_{count}", "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(one)
            results.append(
                {
                    "role": "tool",
                    "tool_call_id": one["id"],
                    "name": "python",
                    "content": call["output"],
                }
            )
        messages += [message, *results]
        if turn.get("appended") and not calls:
            messages.append({"role": "user", "content": "Put the final answer in \\boxed{}."})
    return messages
