"""How often a turn that grows is read for code that must stop it.

A reading takes time linear in the text. Read at every token, a model that writes fences in a loop
would take quadratic time, and hold up all attempts on its engine.
"""

from __future__ import annotations

FREE_TOKENS = 128
"""Tokens up to which a text is read at each token; one of n times as many at each n-th."""


def unread_tokens(count: int, new: int, length: int, ended: bool) -> int:
    """Return how many tokens to look at for a reason to read, or 0 if it is not time yet.

    The tokens at which a text is read depend on their number alone, not on how many come at once.

    Args:
        count: number of tokens of the turn.
        new: number of them that were not there at the last call.
        length: number of tokens that would be read.
        ended: True if the text is complete, so that there is no later time.
    """
    stride = 1 + length // FREE_TOKENS
    if ended or count // stride != (count - new) // stride:
        # The stride grows with the text, so that the last reading may be more than one stride ago.
        return max(1, new) + 2 * (stride - 1)
    return 0
