"""Where tokens occurred before, in all attempts at one problem."""

# Lengths of the contexts by which occurrences are found, and how many of the newest are looked at.
NEWEST = {1: 24, 2: 12, 3: 12, 5: 12}
KEPT = 24  # newest occurrences that a context keeps at least, if there are as many
LONGEST_MATCH = 8  # tokens of context that count; longer matches count alike

TOKEN_BITS = POSITION_BITS = 32
TOKEN_MASK, POSITION_MASK = (1 << TOKEN_BITS) - 1, (1 << POSITION_BITS) - 1
_CONTEXT_MASK = (1 << TOKEN_BITS * max(NEWEST)) - 1

Occurrences = list[tuple[int, list[int], list[int]]]
"""Lengths of matches, longest first; places behind so long a match, and the tokens there.

A place is ``attempt << 32 | position``.
"""


class AttemptTokens:
    """Tokens of one attempt.

    Attributes:
        tokens: the engine's own list, which grows; a rewind shortens it.
        indexed: leading tokens as they were indexed, those before ``begin`` by other attempts.
        begin: position of the first token that this attempt has indexed.
    """

    __slots__ = ("begin", "indexed", "tokens")

    def __init__(self, tokens: list[int], begin: int) -> None:
        self.tokens = tokens
        self.indexed = tokens[:begin]
        self.begin = begin


class TokenHistory:
    """An index of the tokens of all attempts at one problem, by the tokens that precede them.

    A token is found by the last token before it and by the last 2, 3 and 5. For each of these
    contexts the index holds the newest occurrences, ``place << 32 | token``, as a list or as a
    number alone. The four share the number of a token, which takes some 220 bytes in all (measured
    at 8 attempts of 7,000 tokens).
    """

    def __init__(self) -> None:
        self.attempts: list[AttemptTokens] = []
        # For each order: its length, a mask of its tokens, how many to keep, and the index.
        self._orders: list[tuple[int, int, int, dict[int, int | list[int]]]] = [
            (order, (1 << TOKEN_BITS * order) - 1, most, {}) for order, most in NEWEST.items()
        ]

    def add_attempt(self, tokens: list[int], shared: int) -> int:
        """Add an attempt and return its number.

        Args:
            tokens: a list that grows with the attempt.
            shared: number of leading tokens that an earlier attempt has, too.
        """
        self.attempts.append(AttemptTokens(tokens, shared if self.attempts else 0))
        return len(self.attempts) - 1

    def extend(self, attempt: int) -> None:
        """Index the tokens that an attempt has gained, and forget those that it has lost."""
        own = self.attempts[attempt]
        tokens, indexed, begin = own.tokens, own.indexed, len(own.indexed)
        # Tokens that were replaced by as many or more are told by the last ones.
        if indexed[-LONGEST_MATCH:] != tokens[max(0, begin - LONGEST_MATCH) : begin]:
            self._forget_lost(attempt)
            begin = len(indexed)
        added = tokens[begin:]
        context = _packed(indexed[-max(NEWEST) :])
        for position, token in enumerate(added, begin):
            occurrence = (attempt << POSITION_BITS | position) << TOKEN_BITS | token
            for order, mask, _, newest in self._orders:
                if position < order:
                    continue
                key = context & mask
                found = newest.get(key)
                if found is None:
                    newest[key] = occurrence
                elif isinstance(found, int):
                    newest[key] = [found, occurrence]
                else:
                    found.append(occurrence)
                    if len(found) >= 2 * KEPT:
                        del found[:-KEPT]
            context = (context << TOKEN_BITS | token) & _CONTEXT_MASK
        indexed += added

    def _forget_lost(self, attempt: int) -> None:
        """Forget tokens that a rewind took away, even if others stand in their places by now."""
        own = self.attempts[attempt]
        pairs = enumerate(zip(own.indexed, own.tokens, strict=False))
        shorter = min(len(own.indexed), len(own.tokens))
        kept = next((place for place, (old, new) in pairs if old != new), shorter)
        for position in range(max(kept, own.begin), len(own.indexed)):
            token = own.indexed[position]
            occurrence = (attempt << POSITION_BITS | position) << TOKEN_BITS | token
            for order, _, _, newest in self._orders:
                if position < order:
                    continue
                key = _packed(own.indexed[position - order : position])
                found = newest.get(key)
                if found == occurrence:
                    del newest[key]
                elif isinstance(found, list) and occurrence in found:
                    found.remove(occurrence)
        del own.indexed[kept:]
        own.begin = min(own.begin, kept)

    def occurrences(self, tokens: list[int]) -> Occurrences:
        """Return what followed the last tokens before, the newest occurrences of each context."""
        context = _packed(tokens[-max(NEWEST) :])
        contexts: list[tuple[int, int, list[int]]] = []
        for order, mask, most, newest in self._orders:
            found = newest.get(context & mask) if order <= len(tokens) else None
            if found is None:  # then no longer context has occurred either
                break
            contexts.append((order, most, [found] if isinstance(found, int) else found))
        by_length: dict[int, list[int]] = {}
        seen: set[int] = set()
        longer: list[int] = []  # occurrences of the context before
        for order, most, kept in reversed(contexts):
            fresh = kept[: -most - 1 : -1]
            if order + 1 in NEWEST:
                # The newest that match longer are in the list before: others match just so long.
                matching = set(longer[-KEPT:])
                exact = [one for one in fresh if one not in matching] if matching else fresh
                fresh = [one for one in fresh if one in matching] if matching else []
                if exact:
                    by_length[order] = exact
                if order > 1:
                    seen.update(exact)
            for one in fresh:
                if one not in seen:
                    seen.add(one)
                    length = self._match_length(one, tokens, order)
                    by_length.setdefault(length, []).append(one)
            longer = kept
        return [
            (length, [one >> TOKEN_BITS for one in group], [one & TOKEN_MASK for one in group])
            for length, group in sorted(by_length.items(), reverse=True)
        ]

    def _match_length(self, occurrence: int, tokens: list[int], known: int) -> int:
        """Return how many tokens before an occurrence equal the last ones of ``tokens``.

        Args:
            known: number of tokens that are known to be equal.
        """
        place = occurrence >> TOKEN_BITS
        before, position = self.attempts[place >> POSITION_BITS].indexed, place & POSITION_MASK
        most = min(LONGEST_MATCH, position, len(tokens))
        while known < most and before[position - 1 - known] == tokens[-1 - known]:
            known += 1
        return known

    def following(self, occurrences: Occurrences, token: int) -> Occurrences:
        """Return what followed the occurrences of ``token`` among these.

        Matches longer than ``LONGEST_MATCH`` count as ones of that length.
        """
        attempts = self.attempts
        found: Occurrences = []
        current = 0
        for length, places, tokens in occurrences:
            if token not in tokens:
                continue
            longer = length + 1 if length < LONGEST_MATCH else LONGEST_MATCH
            if longer != current:
                found.append((longer, [], []))
                current = longer
            _, behind, followers = found[-1]
            for place, own in zip(places, tokens, strict=True):
                if own == token:
                    place += 1
                    known, position = attempts[place >> POSITION_BITS].tokens, place & POSITION_MASK
                    if position < len(known):
                        behind.append(place)
                        followers.append(known[position])
        return [group for group in found if group[1]]


def _packed(tokens: list[int]) -> int:
    """Return tokens as one number, the last one in its lowest bits."""
    number = 0
    for token in tokens:
        number = number << TOKEN_BITS | token
    return number
