"""The control tokens of Harmony, which are known by their ids alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Control(StrEnum):
    """The control tokens that the state machine knows; values are their texts."""

    START = "<|start|>"
    CHANNEL = "<|channel|>"
    CONSTRAIN = "<|constrain|>"
    MESSAGE = "<|message|>"
    END = "<|end|>"
    CALL = "<|call|>"
    RETURN = "<|return|>"
    STOP = "<|endoftext|>"
    OTHER = "another control token"


REQUIRED = (
    Control.START,
    Control.CHANNEL,
    Control.MESSAGE,
    Control.END,
    Control.CALL,
    Control.RETURN,
)
"""Tokens without which a vocabulary is not one of Harmony."""

TURN_ENDS = (Control.CALL, Control.RETURN, Control.STOP)
"""Tokens at which the model's turn ends."""


@dataclass(frozen=True)
class HarmonyVocabulary:
    """Ids of control tokens, and the text of all others.

    Attributes:
        control: kinds of the control tokens by id.
        ids: ids by kind, without `Control.OTHER`.
        decode: returns the text of ordinary token ids.
    """

    control: Mapping[int, Control]
    ids: Mapping[Control, int]
    decode: Callable[[list[int]], str]

    @classmethod
    def of(
        cls,
        vocabulary: Mapping[str, int],
        stops: Iterable[int],
        others: Iterable[int],
        decode: Callable[[list[int]], str],
    ) -> HarmonyVocabulary:
        """Return the ids that a tokenizer gives the control tokens.

        Args:
            vocabulary: ids by token; all tokens of `REQUIRED` must be there.
            stops: ids of further tokens that end a turn.
            others: ids of further control tokens, which mean nothing in a conversation.
            decode: returns the text of token ids.
        """
        ids = {kind: vocabulary[kind] for kind in Control if kind in vocabulary}
        control = dict.fromkeys(others, Control.OTHER) | dict.fromkeys(stops, Control.STOP)
        control |= {index: kind for kind, index in ids.items()}
        return cls(control, ids, decode)

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of the ordinary tokens among these."""
        return self.decode([token for token in tokens if token not in self.control])
