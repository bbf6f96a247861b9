"""Tokenizes text from outside (tool output, problems) so that it never yields a control token."""

from __future__ import annotations

import re
from typing import Any

from eightfold.common.valid_text import replace_surrogates

_BYTE = re.compile("<0x[0-9A-F]{2}>")


def _is_control(content: str) -> bool:
    # Some vocabularies list runs of newlines and spaces, or single letters, among the added tokens:
    # those are ordinary text.
    return len(content) > 1 and any(
        character.isascii() and not character.isspace() for character in content
    )


class PlainText:
    """Encodes text with every added token's string split into ordinary pieces.

    A tokenizer's own `split_special_tokens` covers only tokens flagged special; `<tool_call>` or
    `</think>` of several checkpoints are not flagged, so the strings are cut here instead.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        control = {index: str(token) for index, token in added.items() if _is_control(str(token))}
        # Byte tokens are what byte fallback makes of ordinary characters; only their text is cut.
        self.control_ids = frozenset(i for i, text in control.items() if not _BYTE.fullmatch(text))
        strings = sorted(control.values(), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, strings))) if strings else None

    def has_control(self, text: str) -> bool:
        """Whether the text holds the string of an added token."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def pieces(self, text: str) -> list[str]:
        """Cuts the text after the first character of each added token's string in it."""
        cuts, start = [0], 0
        while self._pattern is not None and (match := self._pattern.search(text, start)):
            # From the next character on, so that a second, overlapping string is found as well.
            start = match.start() + 1
            cuts.append(start)
        return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if a < b]

    def encode(self, text: str) -> list[int]:
        """Token ids of `replace_surrogates(text)`, none of which is a control token.

        Raises:
            ValueError: the tokenizer maps a single character to a control token.
        """
        text = replace_surrogates(text)
        ids: list[int] = []
        for piece in self.pieces(text):
            found = self._ids(piece)
            if not self.control_ids.isdisjoint(found):  # a token that matches modulo normalization
                found = [index for character in piece for index in self._ids(character)]
            ids += found
        if not self.control_ids.isdisjoint(ids):
            raise ValueError("the tokenizer turns plain text into control tokens")
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids
