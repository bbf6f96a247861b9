"""Encodes text from outside, tool output and problems, so that it yields no control token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eightfold.common.valid_text import replace_surrogates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile("<0x[0-9A-F]{2}>")


def _is_control(content: str) -> bool:
    # Some vocabularies list runs of newlines or spaces, or single letters, among the added tokens.
    # Those are ordinary text.
    return len(content) > 1 and any(
        character.isascii() and not character.isspace() for character in content
    )


class UntrustedTextEncoder:
    """Encodes text as the tokenizer would if it had no added tokens.

    The tokenizers' own `split_special_tokens` covers only tokens that are flagged as special. Some
    checkpoints do not flag `<tool_call>` or `</think>`: where that yields a control token, the text
    of each added token is cut apart instead.

    Attributes:
        control_ids: ids that `encode` never returns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        control = {index: text for index, text in added.items() if _is_control(text)}
        # Byte fallback encodes ordinary characters as byte tokens, so only their text is cut.
        self.control_ids = frozenset(i for i, text in control.items() if not _BYTE.fullmatch(text))
        texts = sorted(control.values(), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, texts))) if texts else None

    def has_control(self, text: str) -> bool:
        """Return True if the text contains the text of an added token."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def pieces(self, text: str) -> list[str]:
        """Cut the text after the first character of each added token's text in it."""
        cuts, start = [0], 0
        while self._pattern is not None and (match := self._pattern.search(text, start)):
            # The search goes on at the next character, to find overlapping tokens as well.
            start = match.start() + 1
            cuts.append(start)
        return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if a < b]

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `replace_surrogates(text)`, without any control token.

        Raises:
            ValueError: if the tokenizer maps a single character to a control token.
        """
        text = replace_surrogates(text)
        if self.has_control(text):
            whole = self._ids(text, split_special_tokens=True)
            if self.control_ids.isdisjoint(whole):
                return whole
        ids: list[int] = []
        for piece in self.pieces(text):
            piece_ids = self._ids(piece)
            # A control token may also match text that becomes equal to its own by normalization.
            if not self.control_ids.isdisjoint(piece_ids):
                piece_ids = [index for character in piece for index in self._ids(character)]
            ids += piece_ids
        if not self.control_ids.isdisjoint(ids):
            raise ValueError("The tokenizer turns ordinary text into control tokens.")
        return ids

    def _ids(self, text: str, **options: bool) -> list[int]:
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, verbose=False, **options
        )
        return ids
