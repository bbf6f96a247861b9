"""Host offload: KV pages of paused and preempted sequences, moved to host memory and back."""

from collections.abc import Iterable

from ..scheduled_step import PageCopy
from ..sequence import FREED, Sequence, held_pages
from .page_pool import PageGroup, PagePool


class HostOffload:
    """Host pages, who holds them, and the copies that fill and read them.

    Args:
        groups: page groups, which say how many host pages there are.
        pools: one device pool per group.
        page_copies: list to which copies are appended, in the order in which they must be made.
    """

    def __init__(
        self,
        groups: tuple[PageGroup, ...],
        pools: list[PagePool],
        page_copies: list[PageCopy],
    ) -> None:
        self._groups = groups
        self._pools = pools
        self._page_copies = page_copies
        self._free = [list(range(group.host_page_count)) for group in groups]
        # Host pages, as (group, page), that are free once the pending copies are made.
        self.restored_pages: list[tuple[int, int]] = []

    def offload(self, seq: Sequence) -> bool:
        """Move the pages of ``seq`` to the host.

        Returns:
            False, with nothing changed, if too few host pages are free.
        """
        needs = [len(held_pages(table)) for table in seq.tables]
        if any(need > len(free) for need, free in zip(needs, self._free, strict=True)):
            return False
        host_tables = []
        for g, table in enumerate(seq.tables):
            host_table: list[int] = []
            for page in table:
                host_table.append(FREED if page == FREED else self._free[g].pop())
                if page != FREED:
                    self._page_copies.append(PageCopy("offload", g, page, host_table[-1]))
                    self._pools[g].release(page)
            host_tables.append(host_table)
        seq.tables, seq.host_tables = [], host_tables
        return True

    def restore(self, seq: Sequence) -> bool:
        """Bring the offloaded pages of ``seq`` back to the device.

        Returns:
            False, with nothing changed, if too few device pages are available.
        """
        if seq.host_tables is None:
            raise AssertionError(f"sequence {seq.id} has no pages on the host")
        needs = [len(held_pages(table)) for table in seq.host_tables]
        if any(need > pool.available for need, pool in zip(needs, self._pools, strict=True)):
            return False
        for g, host_table in enumerate(seq.host_tables):
            table = []
            for page in host_table:
                table.append(FREED if page == FREED else self._pools[g].allocate())
                if page != FREED:
                    self._page_copies.append(PageCopy("restore", g, page, table[-1]))
                    self.restored_pages.append((g, page))
            seq.tables.append(table)
        seq.host_tables = None
        return True

    def discard(self, seq: Sequence) -> None:
        """Free the host pages of ``seq`` and forget their contents."""
        for g, table in enumerate(seq.host_tables or []):
            self._free[g] += held_pages(table)
        seq.host_tables = None

    def free(self, pages: Iterable[tuple[int, int]]) -> None:
        """Free host pages, given as (group, page), whose copies to the device are made."""
        for g, page in pages:
            self._free[g].append(page)

    def check(self, sequences: Iterable[Sequence], in_flight: Iterable[tuple[int, int]]) -> None:
        """Assert that each host page is held once or free.

        Args:
            sequences: every live sequence.
            in_flight: host pages, as (group, page), that steps in flight copy to the device.
        """
        held: list[list[int]] = [[] for _ in self._groups]
        for seq in sequences:
            for g, table in enumerate(seq.host_tables or []):
                held[g] += held_pages(table)
        for g, page in (*in_flight, *self.restored_pages):
            held[g].append(page)
        for group, pages, free in zip(self._groups, held, self._free, strict=True):
            assert sorted(pages + free) == list(range(group.host_page_count)), (
                "host pages are lost or held twice"
            )
