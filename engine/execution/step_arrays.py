"""A step plan as host arrays: what CPU and GPU batches have in common."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..sampling_params import SamplingParams
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
    entry: ScheduledTokens, group: int, window: int | None, page_size: int
) -> VisiblePages:
    """Find what the queries of an entry see in one page group."""
    end = entry.start + entry.count
    begin = 0 if window is None else max(0, entry.start - window + 1)
    first = begin // page_size
    pages = np.array(entry.seq.tables[group][first : -(-end // page_size)])
    return VisiblePages(begin, end, first, pages, page_size)


# Settings of rows that sample for nobody, by name: greedy ones.
PADDING = {"seeds": 0, "top_k": 0, "temperature": 0.0, "top_p": 1.0, "min_p": 0.0}


def sampling_settings(params: Iterable[SamplingParams]) -> dict[str, np.ndarray]:
    """Return the settings of sequences by the names of ``PADDING``, one value for each."""
    params = list(params)
    return {
        "seeds": np.array([each.seed for each in params], np.uint64).astype(np.int64),
        "top_k": np.array([each.top_k for each in params], np.int64),
        "temperature": np.array([each.temperature for each in params], np.float32),
        "top_p": np.array([each.top_p for each in params], np.float32),
        "min_p": np.array([each.min_p for each in params], np.float32),
    }


def sampling_arrays(sampling: list[ScheduledTokens], rows: int) -> dict[str, np.ndarray]:
    """Return the settings of entries that sample, one after the other, padded to ``rows``.

    Drafts sample with the settings of their sequences.
    """
    counts = [entry.draw_count for entry in sampling]
    drawn = sum(counts)
    arrays: dict[str, np.ndarray] = {}
    for name, values in sampling_settings(entry.seq.params for entry in sampling).items():
        arrays[name] = np.full(rows, PADDING[name], values.dtype)
        arrays[name][:drawn] = np.repeat(values, counts)
    positions = [p for entry, n in zip(sampling, counts, strict=True) for p in entry.positions[-n:]]
    arrays["sample_positions"] = np.zeros(rows, np.int64)
    arrays["sample_positions"][:drawn] = np.array(positions, np.int64) + 1
    return arrays
