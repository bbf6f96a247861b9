"""A decoder that only attends: stands in for transformers' modules while kernels compile."""

import torch
from transformers import PreTrainedModel

from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend

from ..execution.decoder_protocol import decode_workspace
from ..execution.kv_cache import KVCache
from ..execution.runner_limits import RunnerLimits
from ..inspection.architecture import Architecture, attention_modules


class AttentionOnlyDecoder:
    """A ``Decoder`` for a model whose weights are not there yet.

    The kernels that ``HFDecoder`` launches are those of attention alone. transformers' modules
    cannot run before the load: weights of any value might break them.
    """

    softcap = 0.0
    capturable = False
    path, path_reason = "plain", "the weights are not there yet"

    def __init__(
        self,
        model: PreTrainedModel,
        architecture: Architecture,
        limits: RunnerLimits,
        page_size: int,
    ) -> None:
        self._heads = int(architecture.config.num_attention_heads)
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._layers = {
            (layer.window, layer.kv_heads, layer.head_dim): (layer, getattr(module, "sinks", None))
            for layer, module in zip(architecture.layers, attention_modules(model), strict=True)
        }
        self._workspace = decode_workspace(architecture, limits, page_size, model.device)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend in one layer of each kind, and return zeros (see ``Decoder``)."""
        for layer, sinks in self._layers.values():
            keys, values = cache.layers[layer.index]
            query = keys.new_zeros(len(tokens), self._heads, layer.head_dim)
            attend(
                query, keys, values, batches[layer.window], torch.zeros_like(query),
                window=layer.window, scale=layer.head_dim**-0.5, sinks=sinks,
                workspace=self._workspace,
            )  # fmt: skip
        count = len(tokens) if rows is None else len(rows)
        return keys.new_zeros(count, self._vocabulary)
