"""Time the host's work between a step's tokens and the next launch, without a GPU.

Scheduler, n-gram drafter and the GPU runner's host code run as they do beside a GPU; nothing is
computed, and the tokens of each step are those of recorded attempts. Keys and values are moved, in
a cache with the layers of Gemma-4-31B and heads of four numbers.
"""

import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from support.speculation.recorded_attempts import load_attempts

from eightfold.engine import SamplingParams
from eightfold.engine.execution.gpu_batch import RowLayout
from eightfold.engine.execution.gpu_runner import GpuRunner
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.execution.step_upload import StepUpload
from eightfold.engine.inspection.kv_geometry import LayerSpec
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.engine.scheduling.pages.page_tables import PageTables
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens, StepPlan, StepResult
from eightfold.engine.scheduling.scheduler import Scheduler
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.speculator import Speculator

CPU = torch.device("cpu")
PAGE_SIZE, WINDOW, LAYERS, CHUNK = 64, 1024, 60, 1024
WARMUP_STEPS = 10
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "stop_token_ids": ()}


class TimedDrafter(NgramDrafter):
    """Adds up the processor time of drafting."""

    seconds = 0.0

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return the drafts of an `NgramDrafter`."""
        began = time.thread_time()
        found = super().draft(sequences, count)
        self.seconds += time.thread_time() - began
        return found


class HostRunner(GpuRunner):
    """Lays out and uploads steps, and launches nothing."""

    def __init__(self, cache: KVCache, limits: RunnerLimits) -> None:
        decoder: Any = SimpleNamespace(softcap=None)
        super().__init__(decoder, cache, limits, 262144, CPU, graphs=False)
        self.graph_pool = (0, 0)
        self._uploads: dict[RowLayout, StepUpload] = {}

    def _graph(self, layout: RowLayout) -> Any:
        if layout not in self._uploads:
            self._uploads[layout] = StepUpload(CPU, self.upload_bytes(layout))

        def launch(runner: GpuRunner, scheduled: list[ScheduledTokens]) -> None:
            self._uploads[layout].copy(runner.arrays(scheduled, layout, layout.rows))

        return SimpleNamespace(launch=launch)

    def compute(self, views: Any, layout: RowLayout) -> None:
        """Compute nothing."""


class HostSteps:
    """Recorded attempts at one problem, from a position on, all of them in lockstep.

    Args:
        folder: of the recordings.
        problem: number of the problem.
        context: tokens that are there before the first step.
        branches: draft trees, else lines.
        drafts: most drafts of an attempt in a step.
        steps: steps that will be measured at most.
        batch: attempts.
    """

    def __init__(
        self, folder: Path, problem: int, context: int, branches: bool, drafts: int, steps: int,
        batch: int,
    ) -> None:  # fmt: skip
        longest = context + (1 + drafts) * (steps + WARMUP_STEPS + 8)
        attempts = load_attempts(folder, problem)[:batch]
        self._records = [a.tokens + [0] * max(0, longest - len(a.tokens)) for a in attempts]
        layers = tuple(
            LayerSpec(i, None if i % 6 == 5 else WINDOW, 1, 4, i, one_copy=i % 6 == 5)
            for i in range(LAYERS)
        )
        architecture: Any = SimpleNamespace(windows=(WINDOW, None), layers=layers)
        held = [WINDOW + CHUNK, longest]
        groups = [
            PageGroup(window, batch * (tokens // PAGE_SIZE + 4) + 2)
            for window, tokens in zip(architecture.windows, held, strict=True)
        ]
        cache = KVCache(architecture, groups, PAGE_SIZE, CPU, torch.bfloat16)
        self.runner = HostRunner(cache, RunnerLimits(batch, CHUNK, longest, drafts))
        self.drafter = TimedDrafter(branches)
        self.speculator = Speculator(self.drafter, None, drafts, uniform=True)
        tables = PageTables(groups, PAGE_SIZE)
        self.scheduler = Scheduler(tables, batch, CHUNK, longest, (), self.speculator)
        prompt = len(attempts[0].seq.tokens)
        for seed, tokens in enumerate(self._records):
            number = self.scheduler.submit(tokens[:context], SamplingParams(**SAMPLING, seed=seed))
            self.scheduler.sequences[number].prompt_length = prompt

    def _draws(self, plan: StepPlan) -> StepResult:
        tokens = [
            self._records[entry.seq.id][position + 1]
            for entry in plan.scheduled
            if entry.samples
            for position in entry.positions[-entry.draw_count :]
        ]
        return StepResult(tokens, [0.5] * len(tokens))

    def measure(self, steps: int) -> dict[str, Any]:
        """Return the processor time of the parts of a step in microseconds, medians.

        Parts are what follows the tokens of a step: taking them in, drafting, the rest of planning,
        and the launch, up to where the graph would be replayed. Indexing comes after that.
        """
        plan, clock = self._begin(), time.thread_time
        parts: dict[str, list[float]] = {
            name: [] for name in ("commit", "draft", "plan", "launch", "critical", "index")
        }
        sampled = 0
        for step in range(-WARMUP_STEPS, steps):
            result, self.drafter.seconds = self._draws(plan), 0.0
            stamps = [clock()]
            events = self.scheduler.commit(plan, result)
            stamps.append(clock())
            planned = self.scheduler.plan()
            assert planned is not None
            plan = planned
            stamps.append(clock())
            self.runner.launch(plan)
            stamps.append(clock())
            self.speculator.end_step(list(self.scheduler.queues.running), None)
            stamps.append(clock())
            if step >= 0:
                commit, planning, launch, index = (b - a for a, b in pairwise(stamps))
                draft = self.drafter.seconds
                found = (commit, draft, planning - draft, launch, stamps[3] - stamps[0], index)
                for own, seconds in zip(parts.values(), found, strict=True):
                    own.append(seconds)
                sampled += sum(len(event.tokens) for event in events)
        self.scheduler.check()
        per_step = sampled / steps / len(self._records)
        return {"tokens_per_step": round(per_step, 3)} | {
            f"{name}_us": round(median(own) * 1e6) for name, own in parts.items()
        }

    def _begin(self) -> StepPlan:
        """Compute the prompts, and return the first step behind them, which is in flight then."""
        while True:
            plan = self.scheduler.plan()
            assert plan is not None
            self.runner.launch(plan)
            self.speculator.end_step(list(self.scheduler.queues.running), None)
            if all(entry.samples and not entry.is_chunk for entry in plan.scheduled):
                return plan
            self.scheduler.commit(plan, self._draws(plan))
