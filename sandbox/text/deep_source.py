"""Compiles sources that are nested deeply, such as a sum of thousands of terms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Python 3.11 compiles three levels of a source for each level of this limit. A level takes 150
# bytes of the C stack, so that these take 4.5 MB of its 8. Later versions have their own limit.
COMPILER_RECURSION_LIMIT = 10_000


@contextmanager
def deep_compilation() -> Iterator[None]:
    """Let the compiler go as deep as the stack safely allows, whatever the recursion limit is."""
    limit = sys.getrecursionlimit()
    if limit >= COMPILER_RECURSION_LIMIT:
        yield
        return
    sys.setrecursionlimit(COMPILER_RECURSION_LIMIT)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
