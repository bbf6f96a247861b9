"""The engine's entry in transformers' attention interface: write to pages, attend to pages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from eightfold.kernels.attention.torch_fallback import (
    TorchAttentionBatch,
    torch_paged_attention,
    write_kv_cache,
)

from ..inspection.architecture import Architecture, LayerSpec, attention_modules
from ..inspection.attention_probe import unmet
from .kv_cache import KVCache

if TYPE_CHECKING:
    from eightfold.kernels.attention.attention_dispatch import PagedBatch

NAME = "eightfold"


class Step:
    """What the attention layers of one model share during a step: a batch per page group.

    workspace: float32 memory for decoding by the GPU kernels.
    """

    def __init__(self) -> None:
        self.batches: Mapping[int | None, TorchAttentionBatch | PagedBatch] = {}
        self.workspace: torch.Tensor | None = None


class LayerCache:
    """One attention module's view of the cache and of the running step."""

    def __init__(self, spec: LayerSpec, cache: KVCache, step: Step) -> None:
        self.spec = spec
        self.cache = cache
        self.step = step
        self._served: object = None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """[1, heads, T, head_dim] each -> [1, T, heads, head_dim]."""
        if self._served is self.step.batches:
            raise NotImplementedError(f"layer {self.spec.index} attends twice in a step")
        self._served = self.step.batches
        batch = self.step.batches[self.spec.window]
        keys, values = self.cache.layers[self.spec.index]
        assert values is not None
        queries = query[0].transpose(0, 1)
        own = self.spec.source == self.spec.index
        new = (key[0].transpose(0, 1), value[0].transpose(0, 1))
        if isinstance(batch, TorchAttentionBatch):
            if own:
                write_kv_cache(*new, keys, values, batch.write_slots)
            out = torch_paged_attention(queries, keys, values, batch, scale, softcap, sinks)
            return out.unsqueeze(0)
        if own:
            # Rows of nobody are written to the null page, which nobody reads.
            write_kv_cache(*new, keys, values, batch.slot_mapping.clamp(min=0).long())
        if softcap is not None:
            raise NotImplementedError("the GPU kernels have no softcap on attention scores")
        return self._by_kernels(queries.contiguous(), batch, scale, sinks).unsqueeze(0)

    def _by_kernels(
        self, queries: torch.Tensor, batch: "PagedBatch", scale: float, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        from eightfold.kernels.attention.attention_dispatch import attend

        out = torch.zeros_like(queries)  # rows of nobody are not written, and must stay finite
        attend(
            queries, *self.cache.layers[self.spec.index], batch, out,
            window=self.spec.window, scale=scale, sinks=sinks, workspace=self.step.workspace,
        )  # fmt: skip
        return out


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature over the pages bound to ``module``.

    Raises:
        NotImplementedError: where a model asks for something that would be silently ignored.
    """
    layer: LayerCache = module.eightfold_layer  # type: ignore[assignment]
    surplus = unmet(attention_mask, dropout, kwargs)
    if surplus:
        raise NotImplementedError(f"the model asks attention for {', '.join(surplus)}")
    if sliding_window != layer.spec.window and sliding_window is not None:
        raise NotImplementedError(
            f"layer {layer.spec.index} attends in a window of {sliding_window}, "
            f"but its configuration says {layer.spec.window}"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return layer.attend(query, key, value, scale, softcap, s_aux), None


def bind(model: PreTrainedModel, architecture: Architecture, cache: KVCache) -> Step:
    """Make the model's attention layers use the cache; the step object steers them."""
    # No mask function under this name: transformers makes no masks then, and who sees what is in
    # the step's batches.
    AttentionInterface.register(NAME, attention_forward)
    step = Step()
    for spec, module in zip(architecture.layers, attention_modules(model), strict=True):
        module.eightfold_layer = LayerCache(spec, cache, step)  # type: ignore[assignment]
    model.set_attn_implementation(NAME)
    return step
