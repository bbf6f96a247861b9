"""Page tables of sequences over one page pool per layer group, and the host's pages behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from .page_pool import PagePool
from .scheduled_step import PageCopy
from .sequence import FREED, Sequence


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Layers that share page tables: all full-attention layers, or all of one sliding window.

    Args:
        window: tokens a query sees, itself included; ``None`` for full attention.
        page_count: pages of the pool, the null page included.
        host_page_count: pages of host memory behind the pool.
    """

    window: int | None
    page_count: int
    host_page_count: int = 0


class PageTables:
    """Who holds which page. Pure bookkeeping: the tensors are elsewhere.

    Args:
        groups: at least one.
        page_size: tokens per page, the same in all groups.
        prefix_cache: keep full pages findable by content after their last holder let go.
    """

    def __init__(
        self, groups: Iterable[PageGroup], page_size: int, prefix_cache: bool = True
    ) -> None:
        self.groups = tuple(groups)
        self.page_size = page_size
        self.prefix_cache = prefix_cache
        self.reset()

    def reset(self) -> None:
        """Start over with every page free and nothing cached; no sequence may hold any."""
        self.pools = [PagePool(group.page_count) for group in self.groups]
        self._host_free = [list(range(group.host_page_count)) for group in self.groups]

    # ---- sizes

    def pages_needed(self, group: int, length: int, chunk: int) -> int:
        """Most pages of a group that a sequence of ``length`` tokens holds at once."""
        window = self.groups[group].window
        pages = -(-length // self.page_size)
        if window is None:
            return pages
        # One page more at either end: neither window nor chunk starts on a page's border.
        return min(pages, -(-(window + chunk) // self.page_size) + 2)

    def fits(self, seq: Sequence, length: int, chunk: int, reserve: int) -> bool:
        """Whether ``seq`` could grow to ``length`` tokens with ``reserve`` pages left over."""
        return all(
            self.pages_needed(g, length, chunk)
            - len(_live(seq.tables[g] if seq.tables else []))
            + reserve
            <= pool.available
            for g, pool in enumerate(self.pools)
        )

    # ---- growing and shrinking

    def grow(self, seq: Sequence, length: int) -> bool:
        """Give ``seq`` pages for ``length`` tokens, or change nothing and return False."""
        count = -(-length // self.page_size)
        if not seq.tables:
            seq.tables = [[] for _ in self.groups]
        missing = [count - len(table) for table in seq.tables]
        if any(need > pool.available for need, pool in zip(missing, self.pools, strict=True)):
            return False
        for table, pool, need in zip(seq.tables, self.pools, missing, strict=True):
            table.extend(pool.take() for _ in range(need))
        return True

    def first_visible_page(self, group: int, position: int) -> int:
        """Index of the first page that a query at ``position`` reads."""
        window = self.groups[group].window
        return 0 if window is None else max(0, position - window + 1) // self.page_size

    def trim(self, seq: Sequence) -> None:
        """Free the pages behind the window of the earliest query still to be computed.

        Of those kept for a later prompt a prompt's stay longest: others begin like it, while what
        was drawn after it comes back only with the sequence itself.
        """
        prompt_pages = seq.prompt_length // self.page_size
        for g, table in enumerate(seq.tables):
            end = min(self.first_visible_page(g, seq.next_query), len(table))
            for index in range(end - 1, -1, -1):
                if table[index] == FREED:
                    break
                self.pools[g].release(table[index], spare=index < prompt_pages)
                table[index] = FREED

    def release(self, seq: Sequence) -> None:
        """Give back all device and host pages; nothing of ``seq`` is computed afterwards."""
        for table, pool in zip(seq.tables, self.pools, strict=False):
            # Tail first: of a cached prefix the end is evicted before its beginning.
            for page in reversed(table):
                if page != FREED:
                    pool.release(page)
        if seq.host_tables is not None:
            self._free_host(seq.host_tables)
        seq.tables, seq.host_tables = [], None
        seq.computed, seq.registered = 0, 0

    # ---- prefix cache

    def _key(self, seq: Sequence, index: int) -> bytes:
        """Content key of page ``index``: a hash over all tokens up to its end."""
        while len(seq.page_keys) <= index:
            i = len(seq.page_keys)
            tokens = seq.tokens[i * self.page_size : (i + 1) * self.page_size]
            digest = blake2b(seq.page_keys[-1] if i else b"", digest_size=16)
            digest.update(b"".join(token.to_bytes(4, "little") for token in tokens))
            seq.page_keys.append(digest.digest())
        return seq.page_keys[index]

    def register(self, seq: Sequence) -> None:
        """Offer the full pages that ended steps have written to the prefix cache."""
        if not self.prefix_cache or not seq.tables:
            return
        end = seq.settled // self.page_size
        for index in range(seq.registered, end):
            key = self._key(seq, index)
            for table, pool in zip(seq.tables, self.pools, strict=True):
                if table[index] != FREED:
                    pool.register(table[index], key)
        seq.registered = max(seq.registered, end)

    def attach_prefix(self, seq: Sequence) -> None:
        """Take up the longest cached beginning of ``seq``; at least one token stays to compute."""
        if not self.prefix_cache:
            return
        limit = (len(seq.tokens) - 1) // self.page_size
        hits: list[list[int]] = [[] for _ in self.groups]
        for index in range(limit):
            key = self._key(seq, index)
            for g, pool in enumerate(self.pools):
                page = pool.find(key)
                hits[g].append(FREED if page is None else page)
            if any(
                hits[g][index] == FREED for g, group in enumerate(self.groups) if not group.window
            ):
                break
        for count in range(min(len(found) for found in hits), 0, -1):
            starts = [
                self.first_visible_page(g, count * self.page_size) for g in range(len(self.groups))
            ]
            if all(
                FREED not in found[start:count] for found, start in zip(hits, starts, strict=True)
            ):
                seq.tables = [
                    [FREED] * start + [pool.share(page) for page in found[start:count]]
                    for found, start, pool in zip(hits, starts, self.pools, strict=True)
                ]
                seq.computed = count * self.page_size
                seq.registered = count
                return

    # ---- forks

    def attach_fork(self, child: Sequence, parent: Sequence) -> list[PageCopy] | None:
        """Share the parent's full pages with ``child`` and copy the last partial one.

        Returns the copies to make, or ``None`` where the parent's pages do not reach that far, are
        gone behind its window, or no page is left for the copy.
        """
        length = child.fork_length - 1  # the last token is computed again: it gives the logits
        if length < 1 or parent.computed < length or not parent.tables:
            return None
        full, partial = divmod(length, self.page_size)
        starts = [self.first_visible_page(g, length) for g in range(len(self.groups))]
        end = full + bool(partial)
        if any(
            FREED in table[start:end] for table, start in zip(parent.tables, starts, strict=True)
        ):
            return None
        if partial and any(pool.available < 1 for pool in self.pools):
            return None
        copies = []
        for g, (pool, start) in enumerate(zip(self.pools, starts, strict=True)):
            source = parent.tables[g]
            table = [FREED] * start + [pool.share(page) for page in source[start:full]]
            if partial:
                table.append(pool.take())
                copies.append(PageCopy("fork", g, source[full], table[full]))
            child.tables.append(table)
        child.computed = child.high_water = length
        return copies

    # ---- host memory

    def offload(self, seq: Sequence) -> list[PageCopy] | None:
        """Move the pages of ``seq`` to the host; ``None`` where the host has no room for them."""
        live = [len(_live(table)) for table in seq.tables]
        if any(need > len(free) for need, free in zip(live, self._host_free, strict=True)):
            return None
        copies, host_tables = [], []
        for g, table in enumerate(seq.tables):
            host: list[int] = []
            for page in table:
                host.append(FREED if page == FREED else self._host_free[g].pop())
                if page != FREED:
                    copies.append(PageCopy("offload", g, page, host[-1]))
                    self.pools[g].release(page)
            host_tables.append(host)
        seq.tables, seq.host_tables = [], host_tables
        return copies

    def restore(self, seq: Sequence) -> tuple[list[PageCopy], list[tuple[int, int]]] | None:
        """Bring offloaded pages back: the copies, and the host pages free once they are made."""
        if seq.host_tables is None:
            raise AssertionError(f"sequence {seq.id} has no pages on the host")
        live = [len(_live(table)) for table in seq.host_tables]
        if any(need > pool.available for need, pool in zip(live, self.pools, strict=True)):
            return None
        copies, freed = [], []
        for g, host in enumerate(seq.host_tables):
            table = []
            for page in host:
                table.append(FREED if page == FREED else self.pools[g].take())
                if page != FREED:
                    copies.append(PageCopy("restore", g, page, table[-1]))
                    freed.append((g, page))
            seq.tables.append(table)
        seq.host_tables = None
        return copies, freed

    def free_host(self, pages: Iterable[tuple[int, int]]) -> None:
        """Give back host pages, as (group, page), whose copies are made."""
        for g, page in pages:
            self._host_free[g].append(page)

    def _free_host(self, tables: list[list[int]]) -> None:
        self.free_host((g, page) for g, table in enumerate(tables) for page in _live(table))

    # ---- proof

    def holds(self, seq: Sequence, start: int, count: int) -> bool:
        """Whether ``seq`` has every page that computing ``count`` tokens from ``start`` touches."""
        end = -(-(start + count) // self.page_size)
        return len(seq.tables) == len(self.groups) and all(
            len(table) >= end and FREED not in table[self.first_visible_page(g, start) : end]
            for g, table in enumerate(seq.tables)
        )

    def check(self, sequences: Iterable[Sequence], moving: Iterable[tuple[int, int]] = ()) -> None:
        """Assert that tables, counts, free lists and windows agree.

        Args:
            sequences: every live sequence.
            moving: host pages, as (group, page), whose copy to the device is under way.
        """
        sequences = list(sequences)
        for g, pool in enumerate(self.pools):
            pool.check([page for s in sequences if s.tables for page in _live(s.tables[g])])
            host = [page for s in sequences if s.host_tables for page in _live(s.host_tables[g])]
            host += [page for group, page in moving if group == g]
            assert sorted(host + self._host_free[g]) == list(
                range(self.groups[g].host_page_count)
            ), "host pages are lost or held twice"
        for seq in sequences:
            for g, table in enumerate(seq.tables):
                assert len(table) * self.page_size >= seq.computed, "computed tokens have no page"
                first = self.first_visible_page(g, seq.next_query)
                assert FREED not in table[first:], "a visible page was freed"


def _live(table: list[int]) -> list[int]:
    return [page for page in table if page != FREED]
