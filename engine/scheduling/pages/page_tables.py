"""Page tables: which pages hold the KV of each sequence, in one page pool per layer group."""

from collections.abc import Iterable

from ..scheduled_step import PageCopy
from ..sequence import FREED, Sequence, held_pages
from .host_offload import HostOffload
from .page_pool import PageGroup, PagePool
from .prefix_cache import PrefixCache


class PageTables:
    """Page tables of all sequences, as pure bookkeeping: the tensors are elsewhere.

    Args:
        groups: page groups, at least one.
        page_size: tokens per page, the same in all groups.
        prefix_cache: keep full pages findable by their content when no sequence holds them.
    """

    def __init__(
        self, groups: Iterable[PageGroup], page_size: int, prefix_cache: bool = True
    ) -> None:
        self.groups = tuple(groups)
        self.page_size = page_size
        self._caches_prefixes = prefix_cache
        # By sliding group, how many tokens before the next query have to be kept.
        self._kept_before = [
            (g, group.window + group.rewind_tokens - 1)
            for g, group in enumerate(self.groups)
            if group.window is not None
        ]
        self.reset()

    def reset(self) -> None:
        """Start over with every page free and nothing cached; no sequence may hold any page."""
        self.pools = [PagePool(group.page_count) for group in self.groups]
        self._page_copies: list[PageCopy] = []
        self.host = HostOffload(self.groups, self.pools, self._page_copies)
        self.prefix_cache = PrefixCache(
            self.groups, self.pools, self.page_size, self._caches_prefixes
        )

    def pages_needed(self, group: int, length: int, chunk: int) -> int:
        """Return the most pages of a group that a sequence of ``length`` tokens holds at once.

        Args:
            group: index of the group.
            length: number of tokens.
            chunk: most tokens computed in one step.
        """
        pages = -(-length // self.page_size)
        window = self.groups[group].window
        if window is None:
            return pages
        kept = window + self.groups[group].rewind_tokens
        # One more page at either end: neither the window nor the chunk starts at a page boundary.
        return min(pages, -(-(kept + chunk) // self.page_size) + 2)

    def can_grow(self, seq: Sequence, length: int, chunk: int, reserve: int) -> bool:
        """Return whether ``seq`` could grow to ``length`` tokens.

        Args:
            seq: the sequence.
            length: number of tokens.
            chunk: most tokens computed in one step.
            reserve: number of pages that must be left over in each pool.
        """
        return all(
            self.pages_needed(g, length, chunk)
            - len(held_pages(seq.tables[g] if seq.tables else []))
            + reserve
            <= pool.available
            for g, pool in enumerate(self.pools)
        )

    def grow(self, seq: Sequence, length: int) -> bool:
        """Give ``seq`` pages for ``length`` tokens.

        Returns:
            False, with nothing changed, if too few pages are available.
        """
        count = -(-length // self.page_size)
        if not seq.tables:
            seq.tables = [[] for _ in self.groups]
        for table in seq.tables:
            if len(table) < count:
                break
        else:
            return True
        missing = [count - len(table) for table in seq.tables]
        if any(need > pool.available for need, pool in zip(missing, self.pools, strict=True)):
            return False
        for table, pool, need in zip(seq.tables, self.pools, missing, strict=True):
            table.extend(pool.allocate() for _ in range(need))
        return True

    def keep_up(self, seq: Sequence) -> None:
        """Offer pages that ended steps have filled to the prefix cache, and free those left behind.

        This runs for each sequence in each step, and mostly finds nothing to do.
        """
        size, tables, committed = self.page_size, seq.tables, seq.computed - seq.tokens_in_flight
        if committed // size > seq.registered:
            self.prefix_cache.register(seq)
        if not tables:
            return
        query = min(committed, len(seq.tokens) - 1)  # the earliest that is still to be computed
        for g, kept in self._kept_before:
            end = min((query - kept) // size, len(tables[g]))
            if end > 0 and tables[g][end - 1] != FREED:
                self.free_behind_window(seq)

    def free_behind_window(self, seq: Sequence) -> None:
        """Free the pages that no query still to be computed can see, not even after a rewind.

        If they are cached, those of the prompt are evicted last: other prompts may begin with the
        same tokens, but only this sequence itself can use what was sampled after its prompt.
        """
        prompt_pages = seq.prompt_length // self.page_size
        for group, pool, table in zip(self.groups, self.pools, seq.tables, strict=False):
            end = min(group.first_kept_page(seq.next_query, self.page_size), len(table))
            for index in range(end - 1, -1, -1):
                if table[index] == FREED:
                    break
                pool.release(table[index], evict_first=index >= prompt_pages)
                table[index] = FREED

    def shrink(self, seq: Sequence) -> None:
        """Give back the pages that ``seq`` took for drafts and does not need for its tokens.

        Args:
            seq: a sequence without steps in flight.
        """
        count = -(-len(seq.tokens) // self.page_size)
        for table, pool in zip(seq.tables, self.pools, strict=False):
            while len(table) > count:
                pool.release(table.pop())

    def keep_rows(self, seq: Sequence, start: int, rows: list[int]) -> None:
        """Move the keys and values of some rows of a step next to one another.

        What is at the place of position ``start + rows[i]`` goes to that of ``start + i``. It is
        never read after its place was overwritten, because the rows ascend.
        """
        for g, table in enumerate(seq.tables):
            for target, source in enumerate(rows):
                if source != target:
                    slots = [
                        table[position // self.page_size] * self.page_size
                        + position % self.page_size
                        for position in (start + source, start + target)
                    ]
                    self._page_copies.append(PageCopy("token", g, *slots))

    def truncate(self, seq: Sequence, length: int) -> None:
        """Give back the pages that ``seq`` has written beyond ``length`` tokens.

        The page that holds the end is written to again. If others may read it, because it is
        cached or shared with a fork, the sequence gets a copy of it. Without a page for the copy,
        or if a window's pages are gone, tokens before ``length`` have to be computed again.

        Args:
            seq: a sequence without steps in flight.
            length: number of tokens to keep.
        """
        seq.computed = min(seq.computed, length)
        seq.rewind_length = None
        full, partial = divmod(seq.computed, self.page_size)
        seq.registered = min(seq.registered, full)
        if self._lacks_visible_page(seq, full + bool(partial)):
            self.release(seq)
            return
        if seq.host_tables is not None or not seq.tables:
            return  # pages that come back from the host are private
        if partial and not self._own_last_page(seq, full):
            partial, seq.computed = 0, full * self.page_size
            if self._lacks_visible_page(seq, full):
                self.release(seq)
                return
        for table, pool in zip(seq.tables, self.pools, strict=True):
            while len(table) > full + bool(partial):
                page = table.pop()
                if page != FREED:
                    pool.release(page)

    def _lacks_visible_page(self, seq: Sequence, end: int) -> bool:
        """Return whether a page before page ``end`` that the next query reads was freed."""
        return any(
            FREED in table[group.first_visible_page(seq.next_query, self.page_size) : end]
            for group, table in zip(self.groups, seq.host_tables or seq.tables, strict=False)
        )

    def _own_last_page(self, seq: Sequence, index: int) -> bool:
        """Make page ``index`` of each group private to ``seq``, by copies if need be.

        Returns:
            False, with nothing changed, if a pool has no page for a copy.
        """
        shared = [
            (g, table[index])
            for g, (table, pool) in enumerate(zip(seq.tables, self.pools, strict=True))
            if not pool.is_private(table[index])
        ]
        if any(self.pools[g].available < 1 for g, _ in shared):
            return False
        for g, page in shared:
            copy = self.pools[g].allocate()
            self._page_copies.append(PageCopy("fork", g, page, copy))
            seq.tables[g][index] = copy
            self.pools[g].release(page)
        return True

    def release(self, seq: Sequence) -> None:
        """Free all device and host pages of ``seq``; none of its tokens count as computed then."""
        for table, pool in zip(seq.tables, self.pools, strict=False):
            # Last page first: the end of a cached prefix is evicted before its beginning.
            for page in reversed(table):
                if page != FREED:
                    pool.release(page)
        self.host.discard(seq)
        seq.tables = []
        seq.computed, seq.registered, seq.rewind_length = 0, 0, None

    def attach_fork(self, child: Sequence, parent: Sequence) -> bool:
        """Share the parent's full pages with ``child`` and copy the last partial page.

        Returns:
            False, with nothing changed, if the parent has not computed the child's tokens, if their
            pages fell behind its window, or if no page is available for the copy.
        """
        length = child.fork_length - 1  # the last token is computed again, for its logits
        computed = parent.computed
        if parent.rewind_length is not None:  # the rest is in flight, and will be given back
            computed = min(computed, parent.rewind_length)
        if length < 1 or computed < length or not parent.tables:
            return False
        full, partial = divmod(length, self.page_size)
        starts = [group.first_visible_page(length, self.page_size) for group in self.groups]
        end = full + bool(partial)
        if any(
            FREED in table[start:end] for table, start in zip(parent.tables, starts, strict=True)
        ):
            return False
        if partial and any(pool.available < 1 for pool in self.pools):
            return False
        for g, (pool, start) in enumerate(zip(self.pools, starts, strict=True)):
            source = parent.tables[g]
            table = [FREED] * start + [pool.share(page) for page in source[start:full]]
            if partial:
                table.append(pool.allocate())
                self._page_copies.append(PageCopy("fork", g, source[full], table[full]))
            child.tables.append(table)
        child.computed = child.max_computed = length
        return True

    def take_copies(self) -> tuple[list[PageCopy], list[tuple[int, int]]]:
        """Return and clear what the next step must copy before its forward pass.

        Returns:
            The copies in the order in which they must be made, and the host pages, as (group,
            page), that are free once they are made.
        """
        copies, host_pages = list(self._page_copies), list(self.host.restored_pages)
        self._page_copies.clear()
        self.host.restored_pages.clear()
        return copies, host_pages

    def covers(self, seq: Sequence, start: int, count: int) -> bool:
        """Return whether ``seq`` holds every page needed to compute ``count`` tokens."""
        end = -(-(start + count) // self.page_size)
        return len(seq.tables) == len(self.groups) and all(
            len(table) >= end
            and FREED not in table[group.first_visible_page(start, self.page_size) : end]
            for group, table in zip(self.groups, seq.tables, strict=True)
        )

    def check(
        self, sequences: Iterable[Sequence], in_flight: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Assert that tables, reference counts, free lists and windows agree.

        Args:
            sequences: every live sequence.
            in_flight: host pages, as (group, page), that steps in flight copy to the device.
        """
        sequences = list(sequences)
        for g, pool in enumerate(self.pools):
            pool.check([page for s in sequences if s.tables for page in held_pages(s.tables[g])])
        self.host.check(sequences, in_flight)
        for seq in sequences:
            for group, table in zip(self.groups, seq.tables, strict=False):
                assert len(table) * self.page_size >= seq.computed, "computed tokens have no page"
                first = group.first_visible_page(seq.next_query, self.page_size)
                rewinding = seq.rewind_length is not None  # it may have to give up its pages
                assert rewinding or FREED not in table[first:], "a visible page was freed"
