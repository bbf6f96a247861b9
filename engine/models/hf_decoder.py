"""Any model that the engine can page, run by transformers' own modules on a GPU."""

import torch
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch

from ..execution.decoder_protocol import decode_workspace
from ..execution.hf_attention import attach
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture


class HFDecoder:
    """transformers' modules over the GPU attention kernels; a ``Decoder``.

    Attaches the cache to the model for good.
    """

    softcap = 0.0
    capturable = False

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        cache: KVCache,
        limits: RunnerLimits,
    ) -> None:
        self._model = model
        self._context = attach(model, architecture, cache)
        self._context.workspace = decode_workspace(
            architecture, limits, cache.page_size, model.device
        )

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [R, vocabulary] in the model's type (see ``Decoder``)."""
        self._context.batches = batches
        output = self._model(
            input_ids=tokens[None].long(),
            position_ids=positions[None].long(),
            use_cache=False,
            logits_to_keep=0 if rows is None else rows.long(),
        )
        return output.logits[0].contiguous()
