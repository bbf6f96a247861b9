"""Runs one planned step through the model and draws its tokens."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from eightfold.kernels.sampling import entropy, sample

from .attention import Step
from .batch import Batch, build
from .cache import KVCache
from .plan import Plan, Sampled


@dataclass(slots=True)
class Flight:
    """A step on the device. ``wait`` blocks until its tokens are on the host."""

    plan: Plan
    tokens: torch.Tensor | None
    entropies: torch.Tensor | None
    done: torch.cuda.Event | None

    def wait(self) -> Sampled:
        if self.done is not None:
            self.done.synchronize()
        if self.tokens is None:
            return Sampled([], [])
        tokens = self.tokens.tolist()
        return Sampled(
            tokens, [0.0] * len(tokens) if self.entropies is None else self.entropies.tolist()
        )


class Runner:
    """The model, its cache, and the tokens that the last step drew.

    Args:
        step: what :func:`eightfold.engine.attention.bind` returned for model and cache.
    """

    def __init__(self, model: PreTrainedModel, cache: KVCache, step: Step, page_size: int) -> None:
        self.model = model
        self.cache = cache
        self.device = model.device
        self._step = step
        self._page_size = page_size
        self._last_tokens: torch.Tensor | None = None
        self._last_row: dict[int, int] = {}

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Flight:
        """Start a step; on a GPU this returns while it runs."""
        self.cache.make(plan.moves)
        batch = build(plan.works, self.cache.windows, self._page_size, self.device)
        self._fill_carried(batch)
        logits = self._forward(batch)
        self._last_row = {
            work.seq.id: row for row, work in enumerate(w for w in plan.works if w.samples)
        }
        if batch.sampling is None:
            return self._depart(plan, None, None)
        tokens = sample(logits, batch.sampling)
        self._last_tokens = tokens
        return self._depart(plan, tokens, entropy(logits) if batch.entropy else None)

    def _fill_carried(self, batch: Batch) -> None:
        rows, seqs = batch.carried
        if rows:
            assert self._last_tokens is not None
            source = [self._last_row[seq] for seq in seqs]
            batch.tokens[0, list(rows)] = self._last_tokens[source]

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Logits [R, V] of the rows that sample."""
        self._step.batches = batch.attention
        output = self.model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            use_cache=False,
            logits_to_keep=batch.sample_rows,
        )
        return output.logits[0]

    def _depart(
        self, plan: Plan, tokens: torch.Tensor | None, entropies: torch.Tensor | None
    ) -> Flight:
        if self.device.type == "cpu":
            return Flight(plan, tokens, entropies, None)
        host = [None if t is None else t.to("cpu", non_blocking=True) for t in (tokens, entropies)]
        done = torch.cuda.Event()
        done.record()
        return Flight(plan, host[0], host[1], done)
