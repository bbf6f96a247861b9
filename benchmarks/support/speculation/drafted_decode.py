"""Times decode steps of one engine with different drafts, from the same prompts."""

import time
from typing import Any

from support.step_profile import profile

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.engine.execution.draft_chain import DeviceDrafter
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.drafter import Draft, Drafter
from eightfold.engine.speculation.speculator import Speculator
from eightfold.engine.speculation.step_costs import StepCosts

WARMUP_STEPS, PROFILED_STEPS = 4, 8
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "stop_token_ids": ()}


class ConstantDrafter:
    """Always the same token: drafts that cost what drafts cost and are hardly ever right."""

    name, branches, gives_chances = "constant", False, False

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        """Return ``count`` equal drafts for each sequence."""
        return [Draft(DraftTree.line([11] * count)) for _ in sequences]

    def observe(self, sequences: list[Sequence]) -> None:
        """Learn nothing."""

    def forget(self, seq: Sequence) -> None:
        """Forget nothing."""


def drafting_config(batch: int, max_context: int, tokens: int, **changes: Any) -> EngineConfig:
    """Return the configuration of an engine that can rewind ``tokens`` tokens."""
    settings = {
        "max_running": batch, "max_step_tokens": 1024, "max_context": max_context,
        "prefix_cache": False, "rewind_tokens": tokens, "speculate": "auto", "always_draft": True,
    }  # fmt: skip
    return EngineConfig(**{**settings, **changes})


class DraftedDecode:
    """Sequences behind their prompts, from where each measurement starts anew.

    Args:
        engine: an engine with a drafter.
        prompts: one for each sequence.
        seed: of the first sequence; others have the numbers that follow.
    """

    def __init__(self, engine: Engine, prompts: list[list[int]], seed: int = 0) -> None:
        self.engine = engine
        self.length = len(prompts[0])
        self.seqs = [
            engine.submit(prompt, SamplingParams(**SAMPLING, seed=own))
            for own, prompt in enumerate(prompts, seed)
        ]
        waiting = set(self.seqs)
        self.set_drafter(None, 0)
        while waiting:
            waiting -= {event.seq for event in engine.step() if event.tokens}
        self.pause()

    def set_drafter(
        self, drafter: Drafter | None, drafts: int, costs: StepCosts | None = None
    ) -> None:
        """Draft from now on with ``drafter``; ``None`` for no drafts.

        Args:
            drafts: most drafts of a sequence in a step.
            costs: what steps cost, if only drafts that pay are verified; ``None`` for all drafts.
        """
        speculator = None
        if drafter is not None:
            speculator = Speculator(drafter, costs, drafts, uniform=True)
            runner: Any = self.engine._runner
            runner.device_drafter = drafter if isinstance(drafter, DeviceDrafter) else None
        self.engine._speculator = self.engine._scheduler.draft_source = speculator

    def end(self) -> None:
        """End the sequences."""
        for seq in self.seqs:
            self.engine.cancel(seq)
        while self.engine.has_work():
            self.engine.step()

    def pause(self) -> None:
        """Rewind every sequence to its prompt."""
        for seq in self.seqs:
            self.engine.rewind(seq, self.length)
        while self.engine.has_work():
            self.engine.step()

    def measure(
        self, tokens: int, running: int | None = None, *, profiled: bool = False
    ) -> dict[str, Any]:
        """Sample ``tokens`` tokens of each sequence, and return figures of the steps.

        Args:
            running: number of sequences; ``None`` for all.
            profiled: measure in a few more steps for what share of the time the device waits.
        """
        seqs = self.seqs[:running]
        for seq in seqs:
            self.engine.resume(seq, [])
        found: dict[int, list[int]] = {seq: [] for seq in seqs}
        steps, timed, began = 0, 0, 0.0
        if self.engine._speculator is not None:  # what a drafter must know before its first drafts
            sequences = [self.engine._scheduler.sequences[seq] for seq in seqs]
            self.engine._speculator.drafter.observe(sequences)
        before = dict(self.engine.stats())
        while min(map(len, found.values())) < tokens:
            if steps == WARMUP_STEPS:
                began = time.perf_counter()
            for event in self.engine.step():
                found[event.seq] += event.tokens
                timed += len(event.tokens) if steps >= WARMUP_STEPS else 0
            steps += 1
        seconds = time.perf_counter() - began
        after = self.engine.stats()
        drafted = after["drafted_tokens"] - before["drafted_tokens"]
        accepted = after["accepted_tokens"] - before["accepted_tokens"]
        self.tokens = found
        idle = round(profile(self.engine, PROFILED_STEPS)[1], 4) if profiled else None
        return {
            "tokens_per_s": round(timed / seconds, 1),
            "step_ms": round(seconds / (steps - WARMUP_STEPS) * 1e3, 3),
            "tokens_per_step": round(timed / (steps - WARMUP_STEPS) / len(seqs), 3),
            "acceptance": round(accepted / drafted, 4) if drafted else None,
            **({"idle_share": idle} if profiled else {}),
        }
