"""The contents of one turn of the model, and what a chat format has the solver append to it."""

from __future__ import annotations

from dataclasses import dataclass

from .tool_call import Call, MalformedCall

NO_CALL = MalformedCall("there was no call before the response")
"""The call of a turn in which the model waits for a result without having called."""


@dataclass(frozen=True)
class TurnContents:
    """The contents of a turn.

    Attributes:
        calls: calls that are to run, in order.
        final: text outside thoughts, calls, code and outputs.
        draft: text of thoughts whose boxes count only if an attempt ends without any other.
        notes: what was out of order in the turn and how it was read, a clause each.
    """

    calls: tuple[Call | MalformedCall, ...] = ()
    final: str = ""
    draft: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlyStop:
    """The place at which a running turn is stopped, because code in it is complete.

    Attributes:
        kept: number of tokens of the turn that are kept.
        calls: calls that are to run.
    """

    kept: int
    calls: tuple[Call | MalformedCall, ...]


@dataclass(frozen=True)
class Reply:
    """Tokens that the solver appends to a turn.

    Attributes:
        ids: token ids.
        opener: what the model's next text goes on from, such as the opening of a thought, or "".
        drop_last: True if the ids stand in place of the turn's last token.
    """

    ids: tuple[int, ...]
    opener: str = ""
    drop_last: bool = False
