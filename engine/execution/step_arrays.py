"""A step plan as host arrays: what CPU and GPU batches have in common."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..scheduling.scheduled_step import ScheduledTokens


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """The tokens of a step by row.

    Attributes:
        tokens: [rows]; 0 for padding, and for carried tokens, whose values are still on the device.
        positions: [rows]; 0 for padding.
        carried: (row, sequence id) of each carried token.
        sample_rows: rows whose logits give a token, in the order of their entries. Each row of an
            entry with drafts gives one.
    """

    tokens: np.ndarray
    positions: np.ndarray
    carried: list[tuple[int, int]]
    sample_rows: list[int]


def token_arrays(
    scheduled: list[ScheduledTokens],
    row_starts: list[int],
    rows: int,
    dtype: type[np.signedinteger],
) -> TokenArrays:
    """Lay out the tokens of a step.

    Args:
        row_starts: first row of each entry.
        rows: total, padding included.
    """
    tokens, positions = np.zeros(rows, dtype), np.zeros(rows, dtype)
    carried: list[tuple[int, int]] = []
    sample_rows: list[int] = []
    for entry, row in zip(scheduled, row_starts, strict=True):
        if entry.count == 1 and not entry.drafts:
            if entry.carried:
                carried.append((row, entry.seq.id))
            else:
                tokens[row] = entry.seq.tokens[entry.start]
            positions[row] = entry.start
            if entry.samples:
                sample_rows.append(row)
            continue
        end, after = entry.start + entry.count, row + entry.count
        known = [*entry.seq.tokens[entry.start : end], *entry.drafts.tokens]
        tokens[row : row + len(known)] = known
        positions[row:after] = entry.positions
        if entry.carried:
            carried.append((after - 1, entry.seq.id))
        sample_rows += range(after - entry.draw_count, after)
    return TokenArrays(tokens, positions, carried, sample_rows)


@dataclass(frozen=True, slots=True)
class VisiblePages:
    """Positions ``[begin, end)`` that the queries of an entry see, and the pages that hold them.

    Attributes:
        first_page: index of ``pages[0]`` in the sequence's page table.
        pages: int64, one for each page from the one that holds ``begin``.
    """

    begin: int
    end: int
    first_page: int
    pages: np.ndarray
    page_size: int

    def slots(self, begin: int) -> np.ndarray:
        """Return the slots of positions ``[begin, end)``: page times page size, plus offset."""
        first = begin // self.page_size
        pages = self.pages[first - self.first_page :]
        slots = (pages[:, None] * self.page_size + np.arange(self.page_size)).reshape(-1)
        return slots[begin - first * self.page_size : self.end - first * self.page_size]


def visible_pages(
    entry: ScheduledTokens, group: int, window: int | None, page_size: int, rows: int = 0
) -> VisiblePages:
    """Find what the queries of an entry see in one page group.

    Args:
        rows: rows of the entry, padding before its tokens included; 0 for no padding. Pages that
            only padding sees may be freed.

    Returns:
        What is visible if the entry does not move, and pages for all places that it may move to.
    """
    end = entry.start + entry.count
    first_query = end - max(rows, entry.count)
    begin = 0 if window is None else max(0, first_query - window + 1)
    first = begin // page_size
    pages = np.array(entry.seq.tables[group][first : -(-(end + entry.may_move) // page_size)])
    return VisiblePages(begin, end, first, pages, page_size)


def sampling_arrays(
    sampling: list[ScheduledTokens], rows: int, row_starts: list[int] | None = None
) -> dict[str, np.ndarray]:
    """Return the settings of the entries that sample, padded with greedy rows to ``rows``.

    Args:
        row_starts: first row of each entry; ``None`` for one entry after another.
    """
    arrays: dict[str, np.ndarray] = {
        "seeds": np.zeros(rows, dtype=np.int64),
        "sample_positions": np.zeros(rows, dtype=np.int64),
        "top_k": np.zeros(rows, dtype=np.int64),
        "temperature": np.zeros(rows, dtype=np.float32),
        "top_p": np.ones(rows, dtype=np.float32),
        "min_p": np.zeros(rows, dtype=np.float32),
    }
    counts = [entry.draw_count for entry in sampling]
    starts = row_starts or [*accumulate(counts, initial=0)][:-1]
    if not sampling:
        return arrays
    drawn = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, counts, strict=True)])
    params = [entry.seq.params for entry in sampling]
    settings: dict[str, list[int] | list[float]] = {
        "top_k": [each.top_k for each in params],
        "temperature": [each.temperature for each in params],
        "top_p": [each.top_p for each in params],
        "min_p": [each.min_p for each in params],
    }
    for name, values in settings.items():
        arrays[name][drawn] = np.repeat(np.array(values, arrays[name].dtype), counts)
    seeds = np.array([each.seed for each in params], np.uint64).astype(np.int64)
    arrays["seeds"][drawn] = np.repeat(seeds, counts)
    positions = [p for entry, n in zip(sampling, counts, strict=True) for p in entry.positions[-n:]]
    arrays["sample_positions"][drawn] = np.array(positions) + 1
    return arrays
