"""Any model that the engine can page, on a GPU through transformers' own modules."""

import torch
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch

from ..execution.decoder import Limits
from ..execution.hf_attention import bind
from ..execution.kv_cache import KVCache
from ..inspection.architecture import Architecture


class ModuleDecoder:
    """See `Decoder`. Binds model and cache together for good."""

    softcap = 0.0
    capturable = False

    def __init__(
        self, model: PreTrainedModel, architecture: Architecture, cache: KVCache, limits: Limits
    ) -> None:
        self._model = model
        self._step = bind(model, architecture, cache)
        heads = int(architecture.config.num_attention_heads)
        room = max(limits.workspace(layer, heads, cache.page_size) for layer in architecture.layers)
        self._step.workspace = torch.empty(room, device=model.device)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits [R, V] as the model makes them (see the protocol)."""
        self._step.batches = batches
        output = self._model(
            input_ids=tokens[None].long(),
            position_ids=positions[None].long(),
            use_cache=False,
            logits_to_keep=0 if rows is None else rows.long(),
        )
        return output.logits[0].contiguous()
