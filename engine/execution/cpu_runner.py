"""Runs planned steps by plain torch: one forward of transformers' modules, then the draw."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from eightfold.kernels.sampling.torch_sampler import entropy, sample

from ..scheduling.scheduled_step import StepPlan
from .cpu_batch import Batch, build
from .hf_attention import Step
from .in_flight_step import Flight
from .kv_cache import KVCache

# Less cuDNN's, which is planned anew for every length: at each step lengths are new.
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class Runner:
    """The model, its cache, and the tokens that the last step drew, on any device.

    Args:
        step: what `hf_attention.bind` returned for model and cache.
    """

    def __init__(self, model: PreTrainedModel, cache: KVCache, step: Step) -> None:
        self.model = model
        self.cache = cache
        self.device = model.device
        self._step = step
        self._last_tokens: torch.Tensor | None = None
        self._last_row: dict[int, int] = {}

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Flight:
        """Run a step."""
        self.cache.make(plan.page_copies)
        batch = build(plan.scheduled, self.cache.windows, self.cache.page_size, self.device)
        self._fill_carried(batch)
        logits = self._forward(batch)
        self._last_row = {
            entry.seq.id: row for row, entry in enumerate(w for w in plan.scheduled if w.samples)
        }
        if batch.sampling is None:
            return Flight(plan, None, None, None)
        self._last_tokens = sample(logits, batch.sampling)
        entropies = entropy(logits) if batch.entropy else None
        return Flight(plan, self._last_tokens, entropies, None, logits.isnan().any())

    def _fill_carried(self, batch: Batch) -> None:
        rows, seqs = batch.carried
        if rows:
            assert self._last_tokens is not None
            source = [self._last_row[seq] for seq in seqs]
            batch.tokens[0, list(rows)] = self._last_tokens[source]

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Logits [R, V] of the rows that sample."""
        self._step.batches = batch.attention
        with sdpa_kernel(BACKENDS):
            output = self.model(
                input_ids=batch.tokens,
                position_ids=batch.positions,
                use_cache=False,
                logits_to_keep=batch.sample_rows,
            )
        return output.logits[0]
