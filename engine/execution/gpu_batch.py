"""A step's scheduled tokens as the page tables that the GPU kernels read."""

from dataclasses import dataclass

import numpy as np

from eightfold.kernels.attention.attention_dispatch import NO_SLOT

from ..scheduling.scheduled_step import ScheduledTokens


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows of a step: ``decodes`` rows of one token, then the chunks', then padding.

    Steps of single tokens alone have a power of two of rows, so that few graphs serve them all.
    Others are padded to 16 rows only: products of many rows are computed in tiles of 128, and a
    step that just fills them should stay so.
    """

    decodes: int
    chunks: int
    rows: int

    @staticmethod
    def of(scheduled: list[ScheduledTokens], max_running: int) -> "Layout":
        """Single tokens come first in ``scheduled``."""
        singles = sum(entry.count == 1 for entry in scheduled)
        tokens = sum(entry.count for entry in scheduled[singles:])
        if not tokens:
            decodes = padded_rows(singles)
            return Layout(decodes, 0, decodes)
        return Layout(singles, padded_rows(max_running), -(-(singles + tokens) // 16) * 16)


def padded_rows(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def row_starts(scheduled: list[ScheduledTokens], layout: Layout) -> list[int]:
    """First row of each entry."""
    starts, row = [], layout.decodes
    for index, entry in enumerate(scheduled):
        if entry.count == 1:
            starts.append(index)
        else:
            starts.append(row)
            row += entry.count
    return starts


def table_width(window: int | None, tokens: int, max_context: int, page_size: int) -> int:
    """Pages of one table row for entries of up to ``tokens`` tokens, a multiple of 16."""
    span = max_context if window is None else min(window + tokens - 1, max_context)
    return -(-(-(-span // page_size) + 1) // 16) * 16


def group_arrays(
    scheduled: list[ScheduledTokens],
    group: int,
    window: int | None,
    page_size: int,
    layout: Layout,
    width: int,
) -> dict[str, np.ndarray]:
    """Host arrays of one group's `PagedBatch`."""
    slots = np.full(layout.rows, NO_SLOT, dtype=np.int32)
    sequences = layout.decodes + layout.chunks
    table = np.zeros((sequences, width), dtype=np.int32)
    first_pos = np.zeros(sequences, dtype=np.int32)
    lens = np.zeros(sequences, dtype=np.int32)
    starts = np.zeros(layout.chunks + 1, dtype=np.int32)
    chunk = 0
    for index, (entry, row) in enumerate(
        zip(scheduled, row_starts(scheduled, layout), strict=True)
    ):
        end = entry.start + entry.count
        low = 0 if window is None else max(0, entry.start - window + 1)
        first = low // page_size
        pages = entry.seq.tables[group][first : -(-end // page_size)]
        if entry.count == 1:
            s = index
        else:
            s = layout.decodes + chunk
            chunk += 1
            starts[chunk:] = row + entry.count - layout.decodes
        table[s, : len(pages)] = pages
        first_pos[s], lens[s] = first * page_size, end
        at = np.arange(entry.start, end)
        written = table[s, at // page_size - first] * page_size + at % page_size
        slots[row : row + entry.count] = written
    return {
        "slots": slots,
        "table": table,
        "first_pos": first_pos,
        "lens": lens,
        "starts": starts,
    }


def step_arrays(
    scheduled: list[ScheduledTokens], sources: dict[int, int], layout: Layout
) -> dict[str, np.ndarray]:
    """Tokens, positions and, for tokens still on the device, the row that drew them.

    Args:
        sources: row among the last step's draws, by sequence.
    """
    tokens = np.zeros(layout.rows, dtype=np.int32)
    positions = np.zeros(layout.rows, dtype=np.int32)
    source = np.full(layout.rows, -1, dtype=np.int32)
    for entry, row in zip(scheduled, row_starts(scheduled, layout), strict=True):
        end = entry.start + entry.count
        known = entry.seq.tokens[entry.start : end]
        tokens[row : row + len(known)] = known
        positions[row : row + entry.count] = np.arange(entry.start, end)
        if entry.carried:
            source[row + entry.count - 1] = sources[entry.seq.id]
    return {"tokens": tokens, "positions": positions, "source": source}


def sampling_arrays(scheduled: list[ScheduledTokens], rows: int) -> dict[str, np.ndarray]:
    """Settings of the entries that sample, padded with greedy rows to ``rows``."""
    arrays: dict[str, np.ndarray] = {
        "seeds": np.zeros(rows, dtype=np.int64),
        "places": np.zeros(rows, dtype=np.int64),
        "top_k": np.zeros(rows, dtype=np.int64),
        "temperature": np.zeros(rows, dtype=np.float32),
        "top_p": np.ones(rows, dtype=np.float32),
        "min_p": np.zeros(rows, dtype=np.float32),
    }
    for row, entry in enumerate(scheduled):
        params = entry.seq.params
        arrays["seeds"][row] = np.uint64(params.seed).astype(np.int64)
        arrays["places"][row] = entry.start + entry.count
        arrays["top_k"][row] = params.top_k
        arrays["temperature"][row] = params.temperature
        arrays["top_p"][row] = params.top_p
        arrays["min_p"][row] = params.min_p
    return arrays
