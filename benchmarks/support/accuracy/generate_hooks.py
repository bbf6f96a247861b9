"""Hooks that let transformers' `generate` sample as the engine does and end rows as it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import LogitsProcessor, StoppingCriteria

from eightfold.engine import SamplingParams
from eightfold.kernels.sampling.torch_sampler import SamplingBatch, sample


class BatchRow(Protocol):
    """A row of a batch.

    Attributes:
        tokens: its tokens so far, without padding; their number is the next token's position.
        params: its sampling parameters.
        waits: True if it takes no further token in this round.
    """

    tokens: list[int]
    params: SamplingParams
    waits: bool

    def take(self, token: int) -> None:
        """Add a sampled token."""


class EngineNoise(LogitsProcessor):
    """Leaves one finite score in each row, at the token that the engine's sampler draws.

    With `do_sample=False`, `generate` then samples with the engine's filters and noise, which
    depend on a row's seed and position alone.

    Args:
        rows: the batch; only the seeds of their parameters may differ.
    """

    def __init__(self, rows: Sequence[BatchRow]) -> None:
        self.rows = rows
        self.common = rows[0].params
        # The 64 bits of a seed as a signed number.
        self.seeds = [row.params.seed - (row.params.seed >> 63 << 64) for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        common, device, ones = self.common, scores.device, torch.ones(len(self.seeds))
        batch = SamplingBatch(
            temperature=(ones * common.temperature).to(device),
            top_k=(ones * common.top_k).long().to(device),
            top_p=(ones * common.top_p).to(device),
            min_p=(ones * common.min_p).to(device),
            seeds=torch.tensor(self.seeds, device=device),
            positions=torch.tensor([len(row.tokens) for row in self.rows], device=device),
            max_top_k=common.top_k,
            all_greedy=common.temperature == 0,
            any_filtered=bool(common.top_k or common.top_p < 1 or common.min_p),
        )
        drawn = sample(scores, batch)[:, None]
        return torch.full_like(scores, float("-inf")).scatter(1, drawn, 0.0)


class TurnEnd(StoppingCriteria):
    """Passes each sampled token to its row, and ends the rows that wait."""

    def __init__(self, rows: Sequence[BatchRow]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not row.waits:
                row.take(token)
        return torch.tensor([row.waits for row in self.rows], device=input_ids.device)
