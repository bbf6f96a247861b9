"""Prefix cache: finds pages that already hold the KV of a sequence's first tokens."""

from hashlib import blake2b

from ..sequence import FREED, Sequence
from .page_pool import PageGroup, PagePool


class PrefixCache:
    """Registers full pages under a key of their content, and shares them with later sequences.

    The key of a page is a hash of all tokens up to its end: equal keys mean equal prefixes.

    Args:
        groups: page groups.
        pools: one pool per group.
        page_size: tokens per page.
        enabled: if False, nothing is registered or found.
    """

    def __init__(
        self,
        groups: tuple[PageGroup, ...],
        pools: list[PagePool],
        page_size: int,
        enabled: bool = True,
    ) -> None:
        self._groups = groups
        self._pools = pools
        self._page_size = page_size
        self.enabled = enabled

    def register(self, seq: Sequence) -> None:
        """Make the full pages that ended steps have written for ``seq`` findable."""
        if not self.enabled or not seq.tables:
            return
        end = seq.committed // self._page_size
        for index in range(seq.registered, end):
            key = self._key(seq, index)
            for table, pool in zip(seq.tables, self._pools, strict=True):
                if table[index] != FREED:
                    pool.register(table[index], key)
        seq.registered = max(seq.registered, end)

    def attach(self, seq: Sequence) -> None:
        """Give ``seq``, which holds no pages, those of its longest cached prefix.

        At least one token is left to compute, because its logits are needed. In a sliding-window
        group, only the pages that the next query sees must be cached.
        """
        if not self.enabled:
            return
        hits = self._find(seq)
        for count in range(len(hits[0]), 0, -1):
            length = count * self._page_size
            starts = [group.first_visible_page(length, self._page_size) for group in self._groups]
            if any(FREED in found[start:count] for found, start in zip(hits, starts, strict=True)):
                continue
            seq.tables = [
                [FREED] * start + [pool.share(page) for page in found[start:count]]
                for found, start, pool in zip(hits, starts, self._pools, strict=True)
            ]
            seq.computed = length
            seq.registered = count
            return

    def _find(self, seq: Sequence) -> list[list[int]]:
        """Return the cached pages of each group, ``FREED`` in the place of a missing one.

        The search ends at the first page that a full-attention group lacks.
        """
        hits: list[list[int]] = [[] for _ in self._groups]
        for index in range((len(seq.tokens) - 1) // self._page_size):
            key = self._key(seq, index)
            for found, pool in zip(hits, self._pools, strict=True):
                page = pool.find(key)
                found.append(FREED if page is None else page)
            if any(
                found[index] == FREED
                for found, group in zip(hits, self._groups, strict=True)
                if group.window is None
            ):
                break
        return hits

    def _key(self, seq: Sequence, index: int) -> bytes:
        """Return the content key of page ``index``."""
        while len(seq.page_keys) <= index:
            i = len(seq.page_keys)
            tokens = seq.tokens[i * self._page_size : (i + 1) * self._page_size]
            digest = blake2b(seq.page_keys[-1] if i else b"", digest_size=16)
            digest.update(b"".join(token.to_bytes(4, "little") for token in tokens))
            seq.page_keys.append(digest.digest())
        return seq.page_keys[index]
