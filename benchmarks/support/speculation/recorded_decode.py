"""Recorded attempts decoded once more on a GPU: each token is the recorded one, whatever is drawn.

The model has random weights, so that only its time counts. Its sampler runs as always; behind it, a
table by seed and position puts the recorded token in the place of the drawn one.
"""

from pathlib import Path
from typing import Any

import torch
from support.speculation.drafted_decode import DraftedDecode
from support.speculation.recorded_attempts import load_attempts

from eightfold.engine import Engine
from eightfold.engine.execution import gpu_runner
from eightfold.engine.execution.gpu_batch import RowLayout
from eightfold.engine.execution.runner_limits import padded_rows
from eightfold.kernels.sampling.torch_sampler import SamplingBatch

SEEDS, POSITIONS = 64, 16384
FIRST_SEED = 32  # smaller ones belong to sequences that are sampled freely


class ForcedTokens:
    """Replaces the tokens of steps; made before the engine, whose graphs then hold it."""

    def __init__(self, device: torch.device) -> None:
        self.table = torch.full((SEEDS, POSITIONS), -1, dtype=torch.int64, device=device)
        self._sample = gpu_runner.sample_tokens
        gpu_runner.sample_tokens = self._forced

    def _forced(
        self,
        logits: torch.Tensor,
        batch: SamplingBatch,
        tokens: torch.Tensor,
        workspace: torch.Tensor,
        **options: Any,
    ) -> None:
        self._sample(logits, batch, tokens, workspace, **options)
        seeds = batch.seeds.clamp(0, SEEDS - 1)
        wanted = self.table[seeds, batch.positions.clamp(0, POSITIONS - 1)]
        tokens.copy_(torch.where(wanted >= 0, wanted, tokens))


class RecordedDecode(DraftedDecode):
    """Recorded attempts at one problem from a position on, all of them in lockstep.

    Args:
        engine: an engine with a drafter.
        forced: what replaces its tokens.
        folder: of the recordings.
        problem: number of the problem.
        context: tokens that are there before the first step.
        tokens: tokens of each attempt that will be decoded at most.
        batch: attempts.
    """

    def __init__(
        self,
        engine: Engine,
        forced: ForcedTokens,
        folder: Path,
        problem: int,
        context: int,
        tokens: int,
        batch: int,
    ) -> None:
        attempts = [a.tokens for a in load_attempts(folder, problem)]
        attempts = [a for a in attempts if len(a) >= context + tokens][:batch]
        if len(attempts) < batch:
            raise ValueError(
                f"Problem {problem} of {folder} has only {len(attempts)} attempts of "
                f"{context + tokens} tokens; choose another, or a smaller --batch."
            )
        for row, attempt in enumerate(attempts, FIRST_SEED):
            forced.table[row, : context + tokens] = torch.tensor(attempt[: context + tokens])
        super().__init__(engine, [attempt[:context] for attempt in attempts], FIRST_SEED)
        # Attempts at one problem are recognized by their prompts.
        shared = next(i for i in range(context) if len({a[i] for a in attempts}) > 1)
        for seq in self.seqs:
            engine._scheduler.sequences[seq].prompt_length = shared

    def capture_trees(self, drafts: int) -> None:
        """Capture the steps with trees of up to ``drafts`` drafts, which start-up leaves out."""
        runner: Any = self.engine._runner
        rows = 2
        while runner.graph_pool and rows <= padded_rows(1 + drafts):
            runner._graph(RowLayout.of_size(padded_rows(len(self.seqs)), rows, tree=True))
            rows *= 2
