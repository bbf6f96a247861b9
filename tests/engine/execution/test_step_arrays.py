"""CPU and GPU batches of one plan describe the same step."""

import numpy as np
import pytest
import torch

from eightfold.engine import SamplingParams
from eightfold.engine.execution.cpu_batch import make_cpu_batch
from eightfold.engine.execution.gpu_batch import RowLayout, page_table_width, paged_arrays
from eightfold.engine.execution.step_arrays import sampling_arrays, token_arrays, visible_pages
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens
from eightfold.engine.scheduling.sequence import FREED, Sequence
from eightfold.kernels.attention.attention_shapes import NO_SLOT

PAGE_SIZE, WINDOW, MAX_CONTEXT = 4, 6, 64
WINDOWS = (None, WINDOW)


def entry(number: int, start: int, count: int, carried: bool = False) -> ScheduledTokens:
    """Tokens of a sequence whose pages are scattered and freed behind the window."""
    end = start + count
    tokens = [100 * number + position for position in range(end - carried)]
    params = SamplingParams(seed=2**64 - number, temperature=0.5, top_k=number, entropy=number == 2)
    seq = Sequence(number, tokens, end, params, frozenset())
    pages = [50 * number + 7 * index % 31 for index in range(-(-end // PAGE_SIZE))]
    freed = max(0, start - WINDOW + 1) // PAGE_SIZE
    seq.tables = [pages, [FREED] * freed + [page + 1000 for page in pages[freed:]]]
    return ScheduledTokens(seq, start, count, count != 5, carried, 0)


STEPS = {
    "single tokens": [entry(1, 30, 1), entry(2, 0, 1), entry(3, 9, 1, carried=True)],
    "chunks": [entry(4, 0, 7), entry(5, 13, 5)],
    "both": [entry(1, 30, 1), entry(3, 8, 1, carried=True), entry(4, 2, 19), entry(5, 16, 5)],
}


@pytest.fixture(params=STEPS)
def scheduled(request: pytest.FixtureRequest) -> list[ScheduledTokens]:
    return STEPS[request.param]


def test_slots_are_those_of_the_page_table() -> None:
    one = entry(2, 21, 3)
    for group, window in enumerate(WINDOWS):
        visible = visible_pages(one, group, window, PAGE_SIZE)
        table = one.seq.tables[group]
        assert visible.begin == (0 if window is None else 21 - WINDOW + 1)
        assert FREED not in visible.pages
        for begin in (visible.begin, 21, 23):
            expected = [table[p // PAGE_SIZE] * PAGE_SIZE + p % PAGE_SIZE for p in range(begin, 24)]
            assert visible.slots(begin).tolist() == expected


def test_rows_of_both_batches_hold_the_same_tokens(scheduled: list[ScheduledTokens]) -> None:
    batch = make_cpu_batch(scheduled, WINDOWS, PAGE_SIZE)
    layout = RowLayout.of(scheduled, max_running=4)
    starts = layout.row_starts(scheduled)
    arrays = token_arrays(scheduled, starts, layout.rows, np.int32)
    rows = [row + i for row, one in zip(starts, scheduled, strict=True) for i in range(one.count)]
    assert arrays.tokens[rows].tolist() == batch.tokens[0].tolist()
    assert arrays.positions[rows].tolist() == batch.positions[0].tolist()
    assert [rows[row] for row, _ in batch.carried] == [row for row, _ in arrays.carried]
    assert [rows[row] for row in batch.sample_rows] == arrays.sample_rows
    padding = sorted(set(range(layout.rows)) - set(rows))
    assert not arrays.tokens[padding].any()
    assert not arrays.positions[padding].any()


@pytest.mark.parametrize("group", [0, 1])
def test_both_batches_read_and_write_the_same_slots(
    group: int, scheduled: list[ScheduledTokens]
) -> None:
    window = WINDOWS[group]
    attention = make_cpu_batch(scheduled, WINDOWS, PAGE_SIZE).attention[window]
    layout = RowLayout.of(scheduled, max_running=4)
    width = page_table_width(window, 32, MAX_CONTEXT, PAGE_SIZE)
    arrays = paged_arrays(scheduled, layout, group, window, PAGE_SIZE, width)
    written = arrays["slot_mapping"]
    assert written[written != NO_SLOT].tolist() == attention.write_slots.tolist()

    def keys(sequence: int, begin: int) -> list[int]:
        first, end = arrays["first_pos"][sequence], arrays["seq_lens"][sequence]
        at = np.arange(begin, end)
        pages = arrays["page_table"][sequence][(at - first) // PAGE_SIZE]
        return (pages * PAGE_SIZE + at % PAGE_SIZE).tolist()

    decodes, chunks = 0, 0
    for one in scheduled:
        begin = visible_pages(one, group, window, PAGE_SIZE).begin
        if one.count == 1:
            slots = attention.decode_slots[decodes]
            if attention.decode_mask is not None:
                slots = slots[attention.decode_mask[decodes, 0, 0]]
            assert keys(decodes, begin) == slots.tolist()
            decodes += 1
        else:
            assert keys(layout.decodes + chunks, begin) == attention.chunks[chunks].slots.tolist()
            chunks += 1
            counts = [each.count for each in scheduled if each.count > 1][:chunks]
            assert arrays["query_starts"][chunks] == sum(counts)


def test_masks_show_the_window_before_each_query() -> None:
    attention = make_cpu_batch([entry(4, 10, 7)], WINDOWS, PAGE_SIZE).attention
    full, sliding = attention[None].chunks[0].mask, attention[WINDOW].chunks[0].mask
    assert full.sum(1).tolist() == list(range(11, 18))
    assert sliding.sum(1).tolist() == [WINDOW] * 7
    assert torch.equal(full[:, 5:] & ~sliding, torch.ones(7, 12).tril(-1).bool())


def test_settings_are_padded_with_greedy_rows() -> None:
    sampling = [entry(1, 30, 1), entry(2, 3, 1)]
    arrays = sampling_arrays(sampling, 4)
    assert arrays["seeds"].tolist() == [-1, -2, 0, 0], "unsigned seeds keep their bits"
    assert arrays["sample_positions"].tolist() == [31, 4, 0, 0]
    assert arrays["temperature"].tolist() == [0.5, 0.5, 0, 0]
    assert arrays["top_k"].tolist() == [1, 2, 0, 0]
    assert arrays["top_p"].tolist() == [1, 1, 1, 1]
    assert make_cpu_batch(sampling, WINDOWS, PAGE_SIZE).entropy
