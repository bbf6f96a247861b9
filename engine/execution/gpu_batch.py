"""A step plan as the rows and page tables that the GPU kernels read."""

from dataclasses import dataclass

import numpy as np

from eightfold.kernels.attention.attention_shapes import NO_SLOT

from ..scheduling.pages.page_pool import NULL_PAGE
from ..scheduling.scheduled_step import ScheduledTokens
from .runner_limits import RunnerLimits, padded_rows
from .step_arrays import visible_pages


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Rows of a step: ``decodes`` sequences of ``q_len`` rows, then those of chunks, then padding.

    Steps of single tokens alone, with their drafts, have powers of two of sequences and of rows for
    each, so that few graphs serve them all. A sequence with fewer drafts has padding before its
    rows.
    Others are padded to a multiple of 16 only: products of many rows are computed in tiles of 128,
    and a step that exactly fills them must not grow.

    Attributes:
        decodes: sequences of single tokens, padding among them if there are no chunks.
        chunks: most prefill chunks in the step; 0 if all rows are single tokens.
        rows: total.
        q_len: rows of each sequence of single tokens; 1 without drafts.
        tree: True if some drafts are trees.
    """

    decodes: int
    chunks: int
    rows: int
    q_len: int = 1
    tree: bool = False

    @staticmethod
    def of_size(sequences: int, q_len: int, tree: bool = False) -> "RowLayout":
        """Return the layout of a step of single tokens with up to ``q_len - 1`` drafts each."""
        return RowLayout(sequences, 0, sequences * q_len, q_len, tree)

    @property
    def verifies_lines(self) -> bool:
        """True if there are drafts, and none is a tree: the device counts right ones then."""
        return self.q_len > 1 and not self.tree

    @staticmethod
    def of(scheduled: list[ScheduledTokens], max_running: int) -> "RowLayout":
        """Return the layout of a step; single tokens come first in ``scheduled``."""
        most = max((entry.count for entry in scheduled), default=1)
        if most == 1:
            return RowLayout.of_size(padded_rows(len(scheduled)), 1)
        if any(entry.drafts for entry in scheduled):
            tree = not all(entry.drafts.is_line for entry in scheduled)
            return RowLayout.of_size(padded_rows(len(scheduled)), padded_rows(most), tree)
        singles = sum(entry.count == 1 for entry in scheduled)
        tokens = sum(entry.count for entry in scheduled[singles:])
        return RowLayout(singles, padded_rows(max_running), -(-(singles + tokens) // 16) * 16)

    def row_starts(self, scheduled: list[ScheduledTokens]) -> list[int]:
        """Return the first row of each entry."""
        if self.q_len > 1:
            return [(index + 1) * self.q_len - entry.count for index, entry in enumerate(scheduled)]
        if not self.chunks:
            return list(range(len(scheduled)))
        starts, row = [], self.decodes
        for index, entry in enumerate(scheduled):
            if entry.count == 1:
                starts.append(index)
            else:
                starts.append(row)
                row += entry.count
        return starts


class SteadyArrays:
    """The arrays of a step of single tokens, turned into those of the next step.

    As long as the same sequences compute the tokens that the step before has sampled, positions
    move by one, and a row of a page table changes only if its sequence enters a page or leaves one
    behind its window. So a step of hundreds of sequences costs little more than one of a few.

    Args:
        scheduled: entries of the step, each of which samples.
        layout: layout of the step, without chunks and drafts.
        arrays: arrays of the step by name; overwritten by `advance`.
        windows: window of each page group.
        page_size: tokens of a page.
    """

    def __init__(
        self,
        scheduled: list[ScheduledTokens],
        layout: RowLayout,
        arrays: dict[str, np.ndarray],
        windows: tuple[int | None, ...],
        page_size: int,
    ) -> None:
        self._layout, self._arrays = layout, arrays
        self._windows, self._page_size = windows, page_size
        self._seqs = [entry.seq for entry in scheduled]
        self._starts = [entry.start for entry in scheduled]

    def advance(
        self, scheduled: list[ScheduledTokens], layout: RowLayout
    ) -> dict[str, np.ndarray] | None:
        """Return the arrays of the step behind this one, which the object stands for afterwards.

        A sequence whose token is carried has been in flight since this step, so that its tables
        lost no pages but those behind its windows.

        Returns:
            ``None``, with nothing changed, if the step is not of the same sequences, or does not
            follow from what this one samples.
        """
        starts = [start + 1 for start in self._starts]
        if (
            layout != self._layout
            or [entry.start for entry in scheduled] != starts
            or [entry.seq for entry in scheduled] != self._seqs
            or not all(entry.carried for entry in scheduled)
        ):
            return None
        self._starts, count, arrays = starts, len(starts), self._arrays
        arrays["tokens"][:count] = 0
        arrays["source"][:count] = np.arange(count)
        for name in ("positions", "sample_positions"):
            arrays[name][:count] += 1
        for group in range(len(self._windows)):
            self._advance_group(group, arrays["positions"][:count])
        return arrays

    def _advance_group(self, group: int, positions: np.ndarray) -> None:
        """Advance the arrays of a page group to these positions, [n]."""
        count, size, window = len(positions), self._page_size, self._windows[group]
        page_table = self._arrays[f"page_table{group}"]
        slots, first_pos, seq_lens = (
            self._arrays[f"{name}{group}"][:count]
            for name in ("slot_mapping", "first_pos", "seq_lens")
        )
        slots += 1
        seq_lens += 1
        begins = positions - (window - 1) if window is not None else np.zeros_like(positions)
        firsts = np.maximum(begins, 0) // size * size
        changed = (positions % size == 0) | (firsts != first_pos)
        first_pos[:] = firsts
        for row in np.flatnonzero(changed).tolist():
            first, position = int(firsts[row]) // size, int(positions[row])
            pages = self._seqs[row].tables[group][first : position // size + 1]
            page_table[row] = NULL_PAGE
            page_table[row, : len(pages)] = pages
            slots[row] = pages[-1] * size + position % size


def _leading_singles(scheduled: list[ScheduledTokens]) -> int:
    """Return how many entries of single tokens there are before the first chunk."""
    return next((i for i, entry in enumerate(scheduled) if entry.count > 1), len(scheduled))


def decode_layouts(limits: RunnerLimits) -> list[RowLayout]:
    """Return the layouts of steps of single tokens and lines of drafts, largest first.

    Graphs for trees are captured when the first trees come.
    """
    return [RowLayout.of_size(*size) for size in limits.decode_sizes]


def page_table_width(window: int | None, tokens: int, max_context: int, page_size: int) -> int:
    """Return the pages of a page table row for entries of up to ``tokens`` tokens.

    Rounded up to a multiple of 16.
    """
    span = max_context if window is None else min(window + tokens - 1, max_context)
    return -(-(-(-span // page_size) + 1) // 16) * 16


def paged_arrays(
    scheduled: list[ScheduledTokens],
    layout: RowLayout,
    group: int,
    window: int | None,
    page_size: int,
    table_width: int,
) -> dict[str, np.ndarray]:
    """Return the host arrays of one page group's ``PagedBatch``, by the names of its fields.

    Args:
        scheduled: entries without drafts.
        layout: a layout with one row for each single token.
    """
    slot_mapping = np.full(layout.rows, NO_SLOT, dtype=np.int32)
    sequences = layout.decodes + layout.chunks
    page_table = np.zeros((sequences, table_width), dtype=np.int32)
    first_pos = np.zeros(sequences, dtype=np.int32)
    seq_lens = np.zeros(sequences, dtype=np.int32)
    query_starts = np.zeros(layout.chunks + 1, dtype=np.int32)
    starts = layout.row_starts(scheduled)
    singles = _leading_singles(scheduled)
    for index in range(singles, len(scheduled)):
        entry, row, chunk = scheduled[index], starts[index], index - singles
        query_starts[chunk + 1 :] = row + entry.count - layout.decodes
        visible, s = visible_pages(entry, group, window, page_size), layout.decodes + chunk
        page_table[s, : len(visible.pages)] = visible.pages
        first_pos[s], seq_lens[s] = visible.first_page * page_size, visible.end
        slot_mapping[row : row + entry.count] = visible.slots(entry.start)
    if singles:
        positions = np.array([entry.start for entry in scheduled[:singles]])
        begins = 0 * positions if window is None else np.maximum(positions - (window - 1), 0)
        first_pages, own_pages = begins // page_size, positions // page_size
        bounds = zip(scheduled, first_pages.tolist(), positions.tolist(), strict=False)
        for s, (entry, first, position) in enumerate(bounds):
            end = (position + entry.may_move) // page_size + 1
            page_table[s, : end - first] = entry.seq.tables[group][first:end]
        first_pos[:singles], seq_lens[:singles] = first_pages * page_size, positions + 1
        pages = page_table[np.arange(singles), own_pages - first_pages]
        slot_mapping[:singles] = pages * page_size + positions % page_size
    np.maximum(page_table, NULL_PAGE, out=page_table)
    return {
        "slot_mapping": slot_mapping,
        "page_table": page_table,
        "first_pos": first_pos,
        "seq_lens": seq_lens,
        "query_starts": query_starts,
    }
