"""Host arrays of steps that verify drafts on a GPU, most of which stay the same for many steps."""

from dataclasses import dataclass, field

import numpy as np

from eightfold.kernels.attention.attention_shapes import NO_SLOT

from ..sampling_params import SamplingParams
from ..scheduling.pages.page_pool import NULL_PAGE
from ..scheduling.scheduled_step import ScheduledTokens
from .gpu_batch import RowLayout, page_table_width
from .runner_limits import RunnerLimits
from .step_arrays import PADDING, sampling_settings

Arrays = dict[str, np.ndarray]


@dataclass(slots=True)
class KeptArrays:
    """Arrays that are reused for all steps of one layout until their sequences or pages change.

    Attributes:
        page_tables: of each group, int32 [sequences, width].
        pages: of each group, what the rows of its page table show.
        params: sampling parameters of the sequences that the settings are of.
        settings: settings of each row as if there were no padding, [sequences * rows].
    """

    page_tables: list[np.ndarray]
    pages: list[list[list[int]]]
    params: list[SamplingParams] | None = None
    settings: Arrays = field(default_factory=dict)


class DraftArrays:
    """Lays out steps in which each sequence has ``q_len`` rows, padding before its tokens included.

    Between the tokens of one step and the launch of the next one the device waits, so that rows of
    page tables and settings of sequences are only written anew if they have changed.

    Args:
        windows: window of each page group.
        page_size: tokens of a page.
        limits: limits of the runner.
    """

    def __init__(
        self, windows: tuple[int | None, ...], page_size: int, limits: RunnerLimits
    ) -> None:
        self._windows, self._page_size, self._limits = windows, page_size, limits
        self._kept: dict[RowLayout, KeptArrays] = {}

    def arrays(self, scheduled: list[ScheduledTokens], layout: RowLayout) -> Arrays:
        """Return the arrays of a step, which the next call with the same layout may overwrite.

        Args:
            scheduled: entries that all sample, none of which is carried.
            layout: a layout with ``q_len`` above 1.
        """
        kept = self._kept.get(layout)
        if kept is None:
            kept = self._kept[layout] = self._new_arrays(layout)
        rows, padding = layout.q_len, layout.decodes - len(scheduled)
        tokens: list[int] = []
        positions: list[int] = []
        for entry in scheduled:
            known, start, before = entry.seq.tokens, entry.start, [0] * (rows - entry.count)
            # A step in flight may give the newest token, which the device fills in.
            tokens += [*before, known[start] if start < len(known) else 0, *entry.drafts.tokens]
            positions += before
            positions += [start + depth for depth in entry.drafts.depths]
        empty = [0] * (padding * rows)
        found = {
            "tokens": np.array(tokens + empty, dtype=np.int32),
            "positions": np.array(positions + empty, dtype=np.int32),
            "source": np.full(layout.rows, -1, dtype=np.int32),
        }
        # Places of the rows, which are those of one token after the other even in a tree.
        ends = np.array([entry.start + entry.count for entry in scheduled] + [0] * padding)
        counts = np.array([entry.count for entry in scheduled] + [0] * padding)
        taken = np.arange(rows) >= rows - counts[:, None]
        places = np.where(taken, ends[:, None] + np.arange(-rows, 0), 0)
        self._add_pages(found, scheduled, kept, places, taken)
        if layout.tree:
            found["tree"] = tree_rows(scheduled, layout)
        params = [entry.seq.params for entry in scheduled]
        if kept.params != params:
            for name, values in sampling_settings(params).items():
                own = np.full((layout.decodes, rows), PADDING[name], values.dtype)
                own[: len(params)] = values[:, None]
                kept.settings[name] = own.reshape(-1)
            kept.params = params
        used = taken.reshape(-1)
        settings = kept.settings
        if not used.all():
            settings = {
                name: np.where(used, own, own.dtype.type(PADDING[name]))
                for name, own in settings.items()
            }
        sampled_at = np.where(used, found["positions"].astype(np.int64) + 1, 0)
        return found | {"sample_positions": sampled_at} | settings

    def _new_arrays(self, layout: RowLayout) -> KeptArrays:
        # The step before moves the rows by as many drafts as it has, maybe more than this one.
        tokens = layout.q_len + self._limits.max_drafts
        widths = [
            page_table_width(window, tokens, self._limits.max_context, self._page_size)
            for window in self._windows
        ]
        return KeptArrays(
            [np.full((layout.decodes, width), NULL_PAGE, dtype=np.int32) for width in widths],
            [[[]] * layout.decodes for _ in widths],
        )

    def _add_pages(
        self,
        found: Arrays,
        scheduled: list[ScheduledTokens],
        kept: KeptArrays,
        places: np.ndarray,
        taken: np.ndarray,
    ) -> None:
        """Add the arrays of each page group.

        Args:
            places: place of each row's keys and values, [sequences, rows].
            taken: False for padding, [sequences, rows].
        """
        size, (sequences, rows) = self._page_size, places.shape
        page_of, offsets = places // size, places % size
        index = np.arange(sequences)[:, None]
        for group, window in enumerate(self._windows):
            table, shown = kept.page_tables[group], kept.pages[group]
            firsts, ends = [0] * sequences, [0] * sequences
            for row, entry in enumerate(scheduled):
                ends[row] = end = entry.start + entry.count
                if window is not None:
                    firsts[row] = max(0, end - rows - window + 1) // size
                # Pages for all places that the entry may move to.
                last = -(-(end + entry.may_move) // size)
                pages = entry.seq.tables[group][firsts[row] : last]
                if pages != shown[row]:
                    _show(table[row], pages)
                    shown[row] = pages
            for row in range(len(scheduled), sequences):
                if shown[row]:
                    _show(table[row], [])
                    shown[row] = []
            first_pages = np.array(firsts)[:, None]
            own = table[index, np.where(taken, page_of - first_pages, 0)]
            slots = np.where(taken, own * size + offsets, NO_SLOT)
            found |= {
                f"slot_mapping{group}": slots.reshape(-1).astype(np.int32),
                f"page_table{group}": table,
                f"first_pos{group}": (first_pages[:, 0] * size).astype(np.int32),
                f"seq_lens{group}": np.array(ends, dtype=np.int32),
                f"query_starts{group}": np.zeros(1, dtype=np.int32),
            }


def tree_rows(scheduled: list[ScheduledTokens], layout: RowLayout) -> np.ndarray:
    """Return the positions and visible rows of a step's drafts, as ``paged_decode`` takes them.

    Padding before a sequence's rows stands for the tokens before them, which all its rows see.
    """
    rows = layout.q_len
    alone = [1 << row for row in range(rows)]
    positions: list[int] = []
    visible: list[int] = []
    for entry in scheduled:
        first, start = rows - entry.count, entry.start
        positions += [max(0, start + row) for row in range(-first, 0)]
        positions += [start + depth for depth in entry.drafts.depths]
        sees = [(1 << first + 1) - 1]
        for row, parent in enumerate(entry.drafts.parents, first + 1):
            sees.append(sees[parent] | alone[row])
        visible += alone[:first]
        visible += sees
    absent = layout.decodes - len(scheduled)
    found = [positions + [0] * (absent * rows), visible + alone * absent]
    return np.array(found, dtype=np.int32).T


def _show(row: np.ndarray, pages: list[int]) -> None:
    """Write pages to a row of a page table; those that were freed are only seen by padding."""
    row[:] = NULL_PAGE
    row[: len(pages)] = pages
    np.maximum(row, NULL_PAGE, out=row)
