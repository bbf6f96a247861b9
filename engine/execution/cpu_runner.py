"""Runs steps with plain PyTorch: one forward pass of transformers' modules, then sampling."""

from itertools import accumulate

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from eightfold.kernels.sampling.torch_sampler import entropy, sample

from ..scheduling.scheduled_step import ScheduledTokens, StepPlan
from .cpu_batch import CpuBatch, make_cpu_batch
from .hf_attention import StepContext
from .in_flight_step import InFlightStep
from .kv_cache import KVCache

# Without cuDNN's: it makes a new plan for every length, and lengths are new at each step.
SDPA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class CpuRunner:
    """The model, its cache, and the tokens that the last step sampled.

    It needs nothing of a device but PyTorch, so that it also serves GPUs without our kernels.

    Args:
        context: what ``hf_attention.attach`` returned for model and cache.
    """

    def __init__(self, model: PreTrainedModel, cache: KVCache, context: StepContext) -> None:
        self.model = model
        self.cache = cache
        self.device = model.device
        self._context = context
        self._last_tokens: torch.Tensor | None = None
        self._last_row: dict[int, int] = {}
        # Position of the first of some rows of a sequence, and the states that gave their draws.
        self.hidden: dict[int, tuple[int, torch.Tensor]] = {}
        self._head_input: torch.Tensor | None = None

    def keep_hidden(self) -> None:
        """Keep the input of the model's head for each sequence's last draws, in ``hidden``."""

        def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._head_input = inputs[0]

        self.model.get_output_embeddings().register_forward_pre_hook(keep)

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> InFlightStep:
        """Run a step."""
        self.cache.copy_pages(plan.page_copies)
        scheduled, cache = plan.scheduled, self.cache
        batch = make_cpu_batch(scheduled, cache.windows, cache.page_size, self.device)
        self._fill_carried(batch)
        logits = self._forward(batch)
        self._store_hidden(scheduled)
        sampling = [entry for entry in scheduled if entry.samples]
        ends = accumulate(entry.draw_count for entry in sampling)
        self._last_row = {e.seq.id: end - 1 for e, end in zip(sampling, ends, strict=True)}
        if batch.sampling is None:
            return InFlightStep(plan, None, None, None)
        self._last_tokens = sample(logits, batch.sampling)
        entropies = entropy(logits) if batch.entropy else None
        return InFlightStep(plan, self._last_tokens, entropies, None, logits.isnan().any())

    def _store_hidden(self, scheduled: list[ScheduledTokens]) -> None:
        if self._head_input is None:
            return
        row = 0
        for entry in scheduled:
            if entry.samples:
                rows = self._head_input[0, row : row + entry.draw_count]
                row += entry.draw_count
                first = entry.start + entry.count - entry.draw_count
                if entry.seq.id >= 0:  # not a dummy
                    self.hidden[entry.seq.id] = (first, rows)

    def _fill_carried(self, batch: CpuBatch) -> None:
        if batch.carried:
            assert self._last_tokens is not None
            rows = [row for row, _ in batch.carried]
            source = [self._last_row[seq] for _, seq in batch.carried]
            batch.tokens[0, rows] = self._last_tokens[source]

    def _forward(self, batch: CpuBatch) -> torch.Tensor:
        """Logits [R, vocabulary] of the rows that sample."""
        self._context.batches = batch.attention
        with sdpa_kernel(SDPA_BACKENDS):
            output = self.model(
                input_ids=batch.tokens,
                position_ids=batch.positions,
                use_cache=False,
                logits_to_keep=batch.sample_rows,
            )
        return output.logits[0]
