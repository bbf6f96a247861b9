"""Host arrays of steps with drafts, against each row written down by itself."""

import random
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from helpers.engine_cases.draft_sources import DeviceDrafts, RandomDrafts
from helpers.engine_cases.fake_engine import PAGE_SIZE, PROMPT, FakeEngine, params

from eightfold.engine.execution.draft_arrays import DraftArrays
from eightfold.engine.execution.gpu_batch import RowLayout, page_table_width, paged_arrays
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens, StepPlan, StepResult
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.kernels.attention.attention_shapes import NO_SLOT

MAX_CONTEXT = 48
LIMITS = RunnerLimits(4, 64, MAX_CONTEXT, max_drafts=7)


def written_rows(
    scheduled: list[ScheduledTokens], layout: RowLayout, windows: tuple[int | None, ...]
) -> dict[str, list[Any]]:
    """Return what each row of a step must say, padding included, row by row."""
    found: dict[str, list[Any]] = {
        name: [default] * layout.rows
        for name, default in (
            ("tokens", 0), ("positions", 0), ("source", -1), ("seeds", 0), ("sample_positions", 0),
            ("top_k", 0), ("temperature", 0.0), ("top_p", 1.0), ("min_p", 0.0),
        )
    }  # fmt: skip
    for g in range(len(windows)):
        found |= {f"slot_mapping{g}": [NO_SLOT] * layout.rows, f"query_starts{g}": [0]}
        found |= {f"{name}{g}": [0] * layout.decodes for name in ("first_pos", "seq_lens")}
    if layout.tree:
        alone = [[0, 1 << row] for row in range(layout.q_len)]
        found["tree"] = [list(pair) for _ in range(layout.decodes) for pair in alone]
    for index, entry in enumerate(scheduled):
        seq, end, first = entry.seq, entry.start + entry.count, layout.q_len - entry.count
        newest = [] if entry.may_move else [seq.tokens[entry.start]]
        tokens = [*(newest or [0]), *entry.drafts.tokens]
        for row in range(layout.q_len):
            at, place = index * layout.q_len + row, entry.start + row - first
            if row >= first:
                position = entry.positions[row - first]
                found["tokens"][at], found["positions"][at] = tokens[row - first], position
                found["sample_positions"][at] = position + 1
                found["seeds"][at] = seq.params.seed
                for name in ("top_k", "temperature", "top_p", "min_p"):
                    found[name][at] = getattr(seq.params, name)
                for g, table in enumerate(seq.tables):
                    slot = table[place // PAGE_SIZE] * PAGE_SIZE + place % PAGE_SIZE
                    found[f"slot_mapping{g}"][at] = slot
            if layout.tree and row < first:
                found["tree"][at] = [max(0, place), 1 << row]
            elif layout.tree:
                path = entry.drafts.path(row - first)
                sees = sum(1 << first + own for own in path) + (1 << first) - 1
                found["tree"][at] = [position, sees]
        for g, window in enumerate(windows):
            begin = 0 if window is None else max(0, end - layout.q_len - window + 1)
            found[f"first_pos{g}"][index] = begin // PAGE_SIZE * PAGE_SIZE
            found[f"seq_lens{g}"][index] = end
    return found


def check_page_tables(
    arrays: dict[str, np.ndarray],
    scheduled: list[ScheduledTokens],
    layout: RowLayout,
    windows: tuple[int | None, ...],
) -> None:
    """Assert that page tables show all pages up to where an entry may move, and nothing else."""
    for g, window in enumerate(windows):
        tokens = layout.q_len + LIMITS.max_drafts
        width = page_table_width(window, tokens, MAX_CONTEXT, PAGE_SIZE)
        wanted = np.zeros((layout.decodes, width), np.int32)
        for index, entry in enumerate(scheduled):
            begin = arrays[f"first_pos{g}"][index] // PAGE_SIZE
            end = -(-(entry.start + entry.count + entry.may_move) // PAGE_SIZE)
            pages = entry.seq.tables[g][begin:end]
            assert len(pages) == end - begin
            wanted[index, : len(pages)] = np.maximum(pages, 0)  # padding may see freed ones
        assert np.array_equal(arrays[f"page_table{g}"], wanted)


class ArraysEngine(FakeEngine):
    """Also lays out each step with drafts for the GPU.

    Attributes:
        compared: steps that were laid out.
    """

    def __init__(self, window: int, source: RandomDrafts, **settings: Any) -> None:
        super().__init__(window=window, max_context=MAX_CONTEXT, draft_source=source, **settings)
        self.windows = (None, window)
        self.arrays = DraftArrays(self.windows, PAGE_SIZE, LIMITS)
        self.compared = 0

    def launch(self, plan: StepPlan) -> StepResult:
        layout = RowLayout.of(plan.scheduled, 4)
        if layout.q_len > 1:
            self.compared += 1
            arrays = self.arrays.arrays(plan.scheduled, layout)
            wanted = written_rows(plan.scheduled, layout, self.windows)
            for name, rows in wanted.items():
                assert np.allclose(arrays[name], np.array(rows)), name
            check_page_tables(arrays, plan.scheduled, layout, self.windows)
            tables = {f"page_table{g}" for g in range(len(self.windows))}
            assert set(arrays) == {*wanted, *tables}
        return super().launch(plan)


def source_of(kind: str, seed: int, window: int) -> RandomDrafts:
    if kind == "device":
        return DeviceDrafts(seed, window, 0.8, 3)
    return RandomDrafts(seed, window, 0.7, 7, branches=kind == "trees")


@pytest.mark.parametrize("kind", ["lines", "trees", "device"])
@pytest.mark.parametrize("seed", range(4))
def test_kept_arrays_are_those_of_the_step(kind: str, seed: int) -> None:
    draw = random.Random(seed)
    window = draw.choice([1, 3, 6, 17])
    engine = ArraysEngine(
        window, source_of(kind, seed, window), full=64, sliding=64, max_step_tokens=64,
        lookahead=int(kind == "device"), prefix_cache=draw.random() < 0.7,
    )  # fmt: skip
    live: list[int] = []
    for _ in range(200):
        chance = draw.random()
        with suppress(ValueError):  # the sequence is gone, or not paused
            if chance < 0.1:
                settings = params(
                    max_new_tokens=30, seed=draw.randrange(9), pause_token_ids=(2,),
                    temperature=draw.choice([0.0, 0.5]), top_k=draw.randrange(5),
                    top_p=draw.choice([0.5, 1.0]), min_p=draw.choice([0.0, 0.25]),
                )  # fmt: skip
                live.append(engine.scheduler.submit(PROMPT[: draw.randint(1, 7)], settings))
            elif chance < 0.25 and live:
                engine.scheduler.resume(draw.choice(live), draw.choice([[], [5, 6]]))
            elif chance < 0.3 and live:
                engine.scheduler.rewind(draw.choice(live), draw.randint(1, 12))
            elif chance < 0.32 and live:
                engine.scheduler.cancel(draw.choice(live))
        engine.step()
        engine.check()
    assert engine.compared >= 20


def test_the_arrays_of_no_entries_are_padding() -> None:
    layout = RowLayout.of_size(4, 8, tree=True)
    arrays = DraftArrays((None, 6), PAGE_SIZE, LIMITS).arrays([], layout)
    for name, rows in written_rows([], layout, (None, 6)).items():
        assert arrays[name].tolist() == rows, name
    assert not arrays["page_table0"].any()


def test_single_tokens_that_may_move_see_the_pages_that_they_may_reach() -> None:
    seq = Sequence(0, list(range(8)), 8, params(), frozenset())
    seq.tables = [[7, 8, 9]]
    entry = ScheduledTokens(seq, 7, 1, True, False, 0, may_move=3)
    arrays = paged_arrays([entry], RowLayout.of_size(1, 1), 0, None, PAGE_SIZE, 16)
    assert arrays["page_table"][0].tolist() == [7, 8, 9] + [0] * 13
    assert arrays["seq_lens"].tolist() == [8]
    line = ScheduledTokens(seq, 7, 3, True, False, 0, DraftTree.line([1, 2]), may_move=2)
    drafted = DraftArrays((None,), PAGE_SIZE, LIMITS).arrays([line], RowLayout.of_size(1, 4))
    assert drafted["page_table0"][0, :4].tolist() == [7, 8, 9, 0]


@pytest.mark.parametrize("start", range(120, 124))
def test_few_drafts_may_follow_many(start: int) -> None:
    """A row has room for the pages of a window, however many drafts move the sequence."""
    seq = Sequence(0, list(range(start)), 8, params(), frozenset())
    seq.tables = [list(range(1, 40))]
    entry = ScheduledTokens(seq, start, 4, True, False, 0, DraftTree.line([1, 2, 3]), may_move=7)
    limits = RunnerLimits(4, 64, 200, max_drafts=7)
    arrays = DraftArrays((54,), PAGE_SIZE, limits).arrays([entry], RowLayout.of_size(1, 4))
    begin, end = (start + 4 - 4 - 54 + 1) // PAGE_SIZE, -(-(start + 4 + 7) // PAGE_SIZE)
    assert arrays["page_table0"][0, : end - begin].tolist() == seq.tables[0][begin:end]


def test_sequences_that_have_ended_are_not_kept_alive() -> None:
    seq = Sequence(0, list(range(8)), 8, params(), frozenset(), tables=[[7, 8]])
    arrays, references = DraftArrays((None,), PAGE_SIZE, LIMITS), sys.getrefcount(seq)
    entry = ScheduledTokens(seq, 7, 2, True, False, 0, DraftTree.line([1]))
    arrays.arrays([entry], RowLayout.of_size(1, 2))
    del entry
    assert sys.getrefcount(seq) == references


def test_new_parameters_of_a_sequence_count_from_the_next_step_on() -> None:
    seq = Sequence(0, list(range(8)), 8, params(), frozenset(), tables=[[7, 8, 9]])
    arrays, layout = DraftArrays((None,), PAGE_SIZE, LIMITS), RowLayout.of_size(1, 2)
    entry = ScheduledTokens(seq, 7, 2, True, False, 0, DraftTree.line([1]))
    arrays.arrays([entry], layout)
    seq.params = params(top_k=5, seed=9)
    found = arrays.arrays([entry], layout)
    assert found["top_k"].tolist() == [5, 5]
    assert found["seeds"].tolist() == [9, 9]
