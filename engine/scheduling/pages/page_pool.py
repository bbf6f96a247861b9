"""A pool of KV-cache pages: reference counts, a free list, and a cache of pages by content."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

NULL_PAGE = 0  # never handed out: padding reads and writes go there


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Layers that share page tables: all full-attention layers, or all of one sliding window.

    Args:
        window: number of tokens that a query attends to, itself included; ``None`` for full
            attention.
        page_count: number of pages in the group's pool, including the null page.
        host_page_count: number of pages of host memory behind the pool.
        rewind_tokens: tokens by which a sequence can be rewound without losing its window: pages
            are kept that much longer after they fell behind it.
    """

    window: int | None
    page_count: int
    host_page_count: int = 0
    rewind_tokens: int = 0

    def first_visible_page(self, position: int, page_size: int) -> int:
        """Return the index of the first page that a query at ``position`` reads."""
        return 0 if self.window is None else max(0, position - self.window + 1) // page_size

    def first_kept_page(self, position: int, page_size: int) -> int:
        """Return the index of the first page to keep if no query before ``position`` is to come."""
        return self.first_visible_page(position - self.rewind_tokens, page_size)


class PagePool:
    """Pages ``1..page_count-1`` of one group.

    A page is in exactly one of three states: held by as many page tables as its reference count
    says; free; or cached, that is, held by no table but findable by its content and ready to be
    shared again.

    Args:
        page_count: number of pages, including the null page.

    Raises:
        ValueError: if ``page_count`` leaves no page besides the null page.
    """

    def __init__(self, page_count: int) -> None:
        if page_count < 2:
            raise ValueError(
                f"A page pool needs at least 2 pages, including the null page, not {page_count}."
            )
        self.page_count = page_count
        self._references = [0] * page_count
        self._free: deque[int] = deque(range(1, page_count))
        self._cached: OrderedDict[int, None] = OrderedDict()  # in the order of eviction
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}

    @property
    def capacity(self) -> int:
        """Number of pages that can be held."""
        return self.page_count - 1

    @property
    def available(self) -> int:
        """Number of pages that :meth:`allocate` can return now."""
        return len(self._free) + len(self._cached)

    def allocate(self) -> int:
        """Return a page with one reference: a free page, else the next cached page to evict.

        Raises:
            MemoryError: if no page is available.
        """
        if self._free:
            page = self._free.popleft()
        elif self._cached:
            page, _ = self._cached.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        else:
            raise MemoryError("No page is available.")
        self._references[page] = 1
        return page

    def share(self, page: int) -> int:
        """Add a reference to a held or cached page and return the page."""
        if self._references[page] == 0:
            del self._cached[page]
        self._references[page] += 1
        return page

    def release(self, page: int, evict_first: bool = False) -> None:
        """Drop one reference. After the last one, the page is cached if it has a key, else free.

        Args:
            page: a held page.
            evict_first: if cached, evict the page before all cached pages instead of after them.
        """
        if self._references[page] < 1:
            raise AssertionError(f"page {page} is released but no table holds it")
        self._references[page] -= 1
        if self._references[page] == 0:
            if page in self._key_of:
                self._cached[page] = None
                self._cached.move_to_end(page, last=not evict_first)
            else:
                self._free.append(page)

    def register(self, page: int, key: bytes) -> None:
        """Make a held page findable by its content. The first page under a key stays the one."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def is_private(self, page: int) -> bool:
        """Return whether one table alone holds the page and nobody can find it by its content.

        Only such a page may be written to.
        """
        return self._references[page] == 1 and page not in self._key_of

    def find(self, key: bytes) -> int | None:
        """Return the page with this content, or ``None``."""
        return self._page_of.get(key)

    def check(self, held: Iterable[int]) -> None:
        """Assert that the reference counts match the page tables.

        Args:
            held: every page of every table, with repetitions.
        """
        counts = [0] * self.page_count
        for page in held:
            counts[page] += 1
        assert counts == self._references, "reference counts differ from the tables"
        assert counts[NULL_PAGE] == 0, "the null page is held"
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free), "a page is in the free list twice"
        assert not free & cached, "a page is both free and cached"
        unheld = {page for page in range(1, self.page_count) if counts[page] == 0}
        assert unheld == free | cached, "pages are lost, or are free though held"
        assert cached <= self._key_of.keys(), "a cached page has no key"
        assert not free & self._key_of.keys(), "a free page has a key"
        assert {key: page for page, key in self._key_of.items()} == self._page_of
