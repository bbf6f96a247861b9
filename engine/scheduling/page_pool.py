"""A pool of pages: reference counts, a free list, and a cache of pages by content."""

from collections import OrderedDict, deque
from collections.abc import Iterable

NULL_PAGE = 0  # never handed out: padding reads and writes go there


class PagePool:
    """Pages ``1..count-1`` of one layer group.

    A page is in exactly one of three states: held (its count says by how many tables), free, or
    cached: nobody holds it, but its content is known by key and may be taken up again.

    Args:
        count: pages, the null page included.

    Raises:
        ValueError: where ``count`` leaves no page.
    """

    def __init__(self, count: int) -> None:
        if count < 2:
            raise ValueError(f"a pool needs 2 pages or more, the null page included, not {count}")
        self.count = count
        self._references = [0] * count
        self._free: deque[int] = deque(range(1, count))
        self._cached: OrderedDict[int, None] = OrderedDict()  # next to be taken first
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}

    @property
    def capacity(self) -> int:
        """Pages that can be held."""
        return self.count - 1

    @property
    def available(self) -> int:
        """Pages that :meth:`take` can give now."""
        return len(self._free) + len(self._cached)

    def take(self) -> int:
        """A page held once. Free pages first, then the cached page that is worth least.

        Raises:
            MemoryError: where none is available.
        """
        if self._free:
            page = self._free.popleft()
        elif self._cached:
            page, _ = self._cached.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        else:
            raise MemoryError("no page is available")
        self._references[page] = 1
        return page

    def share(self, page: int) -> int:
        """Hold ``page`` once more: it is held by somebody or cached."""
        if self._references[page] == 0:
            del self._cached[page]
        self._references[page] += 1
        return page

    def release(self, page: int, spare: bool = True) -> None:
        """Hold ``page`` once less. With its last holder gone it is cached, or free if unkeyed.

        Args:
            spare: whether it is to be taken after the pages cached before it, or next of all.
        """
        if self._references[page] < 1:
            raise AssertionError(f"page {page} is released but nobody holds it")
        self._references[page] -= 1
        if self._references[page] == 0:
            if page in self._key_of:
                self._cached[page] = None
                self._cached.move_to_end(page, last=spare)
            else:
                self._free.append(page)

    def register(self, page: int, key: bytes) -> None:
        """Make a held page's content findable. The first page under a key stays the one found."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def find(self, key: bytes) -> int | None:
        """The page with this content, or ``None``."""
        return self._page_of.get(key)

    def check(self, held: Iterable[int]) -> None:
        """Assert that each page is owned exactly as often as its count says.

        Args:
            held: every page of every table, with repetitions.
        """
        counts = [0] * self.count
        for page in held:
            counts[page] += 1
        assert counts == self._references, "reference counts differ from the tables"
        assert counts[NULL_PAGE] == 0, "the null page is held"
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free), "a page is in the free list twice"
        assert not free & cached, "a page is free and cached"
        idle = {page for page in range(1, self.count) if counts[page] == 0}
        assert idle == free | cached, "pages are lost, or free though held"
        assert cached <= self._key_of.keys(), "a cached page has no key"
        assert not free & self._key_of.keys(), "a free page has a key"
        assert {key: page for page, key in self._key_of.items()} == self._page_of
