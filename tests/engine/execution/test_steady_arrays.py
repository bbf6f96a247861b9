"""Arrays that follow from those of the step before equal arrays that are laid out anew."""

import random
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.engine_cases.fake_engine import PAGE_SIZE, PROMPT, FakeEngine, params

from eightfold.engine.scheduling.scheduled_step import ScheduledTokens, StepPlan, StepResult

pytest.importorskip("triton")

from eightfold.engine.execution.gpu_batch import RowLayout
from eightfold.engine.execution.gpu_runner import GpuRunner
from eightfold.engine.execution.runner_limits import RunnerLimits

MAX_CONTEXT = 48


class ArraysEngine(FakeEngine):
    """Also lays out each step for the GPU, twice.

    Attributes:
        advanced: steps whose arrays followed from those of the step before.
    """

    def __init__(self, window: int, running: int, **settings: Any) -> None:
        super().__init__(
            window=window, max_running=running, max_context=MAX_CONTEXT, lookahead=1, **settings
        )
        limits = RunnerLimits(running, 8, MAX_CONTEXT, 0)
        cache: Any = SimpleNamespace(
            windows=(None, window), page_size=PAGE_SIZE, copy_pages=lambda copies: None
        )
        decoder: Any = SimpleNamespace(softcap=None)
        self.runner = GpuRunner(decoder, cache, limits, 64, torch.device("cpu"), graphs=False)
        self.advanced = 0
        self._lay_out = self.runner.arrays
        self.runner.arrays = self.compare  # type: ignore[method-assign]
        self.runner.compute = lambda views, layout: None  # type: ignore[method-assign]

    def compare(
        self, scheduled: list[ScheduledTokens], layout: RowLayout, sample_rows: int
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a step as the runner keeps them."""
        before = self.runner._steady
        found = self._lay_out(scheduled, layout, sample_rows)
        steady, self.runner._steady = self.runner._steady, None
        wanted = self._lay_out(scheduled, layout, sample_rows)
        self.runner._steady = steady
        self.advanced += steady is not None and steady is before
        assert list(found) == list(wanted), "the upload places arrays in this order"
        for name, array in wanted.items():
            assert np.array_equal(found[name], array), name
            assert found[name].dtype == array.dtype
        return found

    def launch(self, plan: StepPlan) -> StepResult:
        self.runner.launch(plan)
        return super().launch(plan)


@pytest.mark.parametrize("window", [1, 3, 6, 17])
def test_single_tokens_of_the_same_sequences_advance(window: int) -> None:
    engine = ArraysEngine(window, running=4)
    for seed in range(4):
        settings = params(max_new_tokens=30, seed=seed, entropy=seed == 1)
        engine.scheduler.submit(PROMPT[: seed + 1], settings)
    engine.run()
    assert engine.advanced >= 25, "all but the first steps and the last"


@pytest.mark.parametrize("seed", range(12))
def test_storms(seed: int) -> None:
    draw = random.Random(seed)
    engine = ArraysEngine(
        draw.choice([1, 3, 6, 17]), draw.choice([1, 3, 6]), full=draw.choice([18, 30, 64]),
        sliding=draw.choice([18, 30, 64]), host=draw.choice([0, 12]),
        prefix_cache=draw.random() < 0.7, rewind_tokens=draw.choice([0, 5]),
    )  # fmt: skip
    scheduler, live = engine.scheduler, list[int]()

    def interfere() -> None:
        kind, seq = draw.random(), draw.choice(live) if live else None
        if kind < 0.4 or seq is None:
            settings = params(max_new_tokens=20, seed=draw.randrange(9), pause_token_ids=(2, 3))
            live.append(scheduler.submit(PROMPT[: draw.randint(1, 7)], settings))
        elif kind < 0.7:
            scheduler.resume(seq, draw.choice([[], [5], [5, 6, 7]]))
        elif kind < 0.8:
            live.extend(scheduler.fork(seq, [draw.randrange(9)]))
        elif kind < 0.93:
            scheduler.rewind(seq, draw.randint(1, 12))
            if draw.random() < 0.5:
                scheduler.resume(seq, [])
        elif kind < 0.97:
            scheduler.cancel(seq)
        else:
            engine.fail()

    for _ in range(250):
        if draw.random() < 0.3:
            with suppress(ValueError):  # the sequence is gone, or not paused
                interfere()
        engine.step()
        engine.check()
    assert engine.advanced >= 20
