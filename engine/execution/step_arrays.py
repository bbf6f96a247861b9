"""A step plan as host arrays: what CPU and GPU batches have in common."""

from dataclasses import dataclass

import numpy as np

from ..scheduling.scheduled_step import ScheduledTokens


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """The tokens of a step by row.

    Attributes:
        tokens: [rows]; 0 for padding, and for carried tokens, whose values are still on the device.
        positions: [rows]; 0 for padding.
        carried: (row, sequence id) of each carried token.
        sample_rows: rows whose logits give a token, in the order of their entries.
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
    carried, sample_rows = [], []
    for entry, row in zip(scheduled, row_starts, strict=True):
        end, last = entry.start + entry.count, row + entry.count - 1
        known = entry.seq.tokens[entry.start : end]
        tokens[row : row + len(known)] = known
        positions[row : last + 1] = np.arange(entry.start, end)
        if entry.carried:
            carried.append((last, entry.seq.id))
        if entry.samples:
            sample_rows.append(last)
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
    entry: ScheduledTokens, group: int, window: int | None, page_size: int
) -> VisiblePages:
    """Find what the queries of an entry see in one page group."""
    end = entry.start + entry.count
    begin = 0 if window is None else max(0, entry.start - window + 1)
    first = begin // page_size
    pages = np.array(entry.seq.tables[group][first : -(-end // page_size)])
    return VisiblePages(begin, end, first, pages, page_size)


def sampling_arrays(sampling: list[ScheduledTokens], rows: int) -> dict[str, np.ndarray]:
    """Return the settings of the entries that sample, padded with greedy rows to ``rows``."""
    arrays: dict[str, np.ndarray] = {
        "seeds": np.zeros(rows, dtype=np.int64),
        "sample_positions": np.zeros(rows, dtype=np.int64),
        "top_k": np.zeros(rows, dtype=np.int64),
        "temperature": np.zeros(rows, dtype=np.float32),
        "top_p": np.ones(rows, dtype=np.float32),
        "min_p": np.zeros(rows, dtype=np.float32),
    }
    for row, entry in enumerate(sampling):
        params = entry.seq.params
        arrays["seeds"][row] = np.uint64(params.seed).astype(np.int64)
        arrays["sample_positions"][row] = entry.start + entry.count
        arrays["top_k"][row] = params.top_k
        arrays["temperature"][row] = params.temperature
        arrays["top_p"][row] = params.top_p
        arrays["min_p"][row] = params.min_p
    return arrays
