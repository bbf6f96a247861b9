"""Compares the calls that a chat format parsed with the expected ones."""

from __future__ import annotations

from eightfold.solver.chat.tool_call import Call, MalformedCall


def assert_calls(parsed: list[Call | MalformedCall], expected: list[str | None]) -> None:
    """Assert the code of each call; None stands for a malformed call, which must give a reason."""
    assert [call.code if isinstance(call, Call) else None for call in parsed] == expected
    for call in parsed:
        if isinstance(call, MalformedCall):
            assert call.reason
            assert not call.reason.endswith(".")
