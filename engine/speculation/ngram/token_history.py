"""Where tokens occurred before, in all attempts at one problem."""

from array import array
from collections.abc import Iterator

# Lengths of the contexts by which positions are found, longest first.
ORDERS = (5, 3, 2, 1)
_BASE, _MASK = 0x9E3779B97F4A7C15, (1 << 61) - 1


class AttemptTokens:
    """Tokens of one attempt, and for each position the one before it with the same context.

    Attributes:
        tokens: the engine's own list, which grows; a rewind shortens it.
        end: positions before it are indexed.
        previous: for each order, the previous place of the same context; -1 for none.
    """

    __slots__ = ("end", "previous", "tokens")

    def __init__(self, tokens: list[int], begin: int) -> None:
        self.tokens = tokens
        self.end = begin
        self.previous = [array("q", [-1]) * begin for _ in ORDERS]


class TokenHistory:
    """An index of the tokens of all attempts at one problem, by the tokens that precede them.

    A place is ``attempt << 32 | position``: that of a token whose predecessors are its context.
    Places of equal contexts are chained, newest first, so that the index takes 32 bytes for each
    token beside one dictionary entry for each different context.
    """

    def __init__(self) -> None:
        self.attempts: list[AttemptTokens] = []
        self._newest: list[dict[int, int]] = [{} for _ in ORDERS]

    def add_attempt(self, tokens: list[int], shared: int) -> int:
        """Add an attempt and return its number.

        Args:
            tokens: a list that grows with the attempt.
            shared: number of leading tokens that an earlier attempt has, too.
        """
        self.attempts.append(AttemptTokens(tokens, shared if self.attempts else 0))
        return len(self.attempts) - 1

    def extend(self, attempt: int) -> None:
        """Index the tokens that an attempt has gained."""
        own = self.attempts[attempt]
        tokens, end = own.tokens, len(own.tokens)
        for order, newest, previous in zip(ORDERS, self._newest, own.previous, strict=True):
            if len(previous) > end:  # a rewind took tokens away
                del previous[end:]
            for position in range(len(previous), end):
                if position < order:
                    previous.append(-1)
                    continue
                key = 0
                for token in tokens[position - order : position]:
                    key = (key * _BASE + token + 1) & _MASK
                previous.append(newest.get(key, -1))
                newest[key] = attempt << 32 | position
        own.end = end

    def places(self, tokens: list[int], order: int, most: int) -> Iterator[int]:
        """Yield the newest places, at most ``most``, that follow the last ``order`` tokens.

        A hash may lead to a place with another context: the caller compares.
        """
        index = ORDERS.index(order)
        key = 0
        for token in tokens[-order:]:
            key = (key * _BASE + token + 1) & _MASK
        place = self._newest[index].get(key, -1)
        for _ in range(most):
            if place < 0:
                return
            yield place
            chain = self.attempts[place >> 32].previous[index]
            position = place & 0xFFFFFFFF
            place = chain[position] if position < len(chain) else -1
