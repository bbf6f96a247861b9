"""Text that grows with its tokens: whole characters only, and nothing from a stop text on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"  # what a decoder gives for the first bytes of a character


class TextStream:
    """Turns the tokens of one sequence into pieces of text.

    Args:
        decode: returns the text of token ids.
        stops: texts that end the stream; they are not part of it.

    Attributes:
        text: all text that was given out.
        stopped: True once a stop text has been found; nothing follows.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        # The tokens that are decoded. The first `_read` of them have been turned into the text
        # `_before`, and are there because a token's text can depend on the one before.
        self._read, self._before = 0, ""
        self._held = ""  # text that may be the beginning of a stop text

    def add(self, tokens: Sequence[int], last: bool = False) -> str:
        """Add tokens and return the text that is certain now.

        Args:
            tokens: the tokens.
            last: True if no more will follow, so that all the text is certain.
        """
        if self.stopped:
            return ""
        self._ids += tokens
        piece = self._held + self._new_text(last)
        found = [at for stop in self._stops if (at := piece.find(stop)) >= 0]
        if found:
            self.stopped, piece, self._held = True, piece[: min(found)], ""
        else:
            keep = 0 if last else self._may_stop(piece)
            piece, self._held = piece[: len(piece) - keep], piece[len(piece) - keep :]
        self.text += piece
        return piece

    def _new_text(self, last: bool) -> str:
        text = self._decode(self._ids)
        if text.endswith(BROKEN) and not last:
            return ""
        new = text[len(self._before) :]
        del self._ids[: self._read]
        self._read = len(self._ids)
        self._before = self._decode(self._ids)
        return new

    def _may_stop(self, text: str) -> int:
        """Return how many characters at the end could begin a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0
