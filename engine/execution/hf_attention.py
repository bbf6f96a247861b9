"""Paged attention for transformers' modules, registered in its attention interface."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from eightfold.kernels.attention.torch_fallback import (
    TorchAttentionBatch,
    torch_paged_attention,
    write_kv_cache,
)

from ..inspection.architecture import Architecture, attention_modules
from ..inspection.attention_probe import unsupported_options
from ..inspection.kv_geometry import LayerSpec
from .kv_cache import KVCache

if TYPE_CHECKING:
    from eightfold.kernels.attention.attention_dispatch import PagedBatch
    from eightfold.kernels.module_ops.rotate_and_write import RotaryLayout

NAME = "eightfold"
Rotation = tuple[torch.Tensor, torch.Tensor, "RotaryLayout"]
"""cos and sin of a step's tokens, [T, width] each, and the elements of a head that they rotate."""


class StepContext:
    """State that the attention layers of one model share during a step.

    Attributes:
        batches: attention batch of each window, set before the forward pass.
        workspace: float32 memory for decoding with the GPU kernels.
    """

    def __init__(self) -> None:
        self.batches: Mapping[int | None, TorchAttentionBatch | PagedBatch] = {}
        self.workspace: torch.Tensor | None = None


class PagedAttentionLayer:
    """Attention of one layer over its part of the cache.

    Attributes:
        rotation: rotation that the next call still has to apply to queries and keys; ``None`` if
            the model has rotated them. Only the GPU kernels take one.
    """

    def __init__(self, spec: LayerSpec, cache: KVCache, context: StepContext) -> None:
        self.spec = spec
        self.cache = cache
        self.context = context
        self.rotation: Rotation | None = None
        self._last_batches: object = None

    def take_rotation(self) -> Rotation | None:
        """Return the rotation of the next call, which forgets it."""
        rotation, self.rotation = self.rotation, None
        return rotation

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write keys and values to the cache, and attend.

        Args:
            query, key, value: [1, heads, T, head_dim].
            softcap: cap of the scores; ``None`` for none.
            sinks: [heads], logits beside those of the keys.

        Returns:
            [1, T, heads, head_dim].

        Raises:
            NotImplementedError: if the model attends twice in this layer.
        """
        if self._last_batches is self.context.batches:
            raise NotImplementedError(f"Layer {self.spec.index} attends twice in a step.")
        self._last_batches = self.context.batches
        batch = self.context.batches[self.spec.window]
        keys, values = self.cache.layers[self.spec.index]
        assert values is not None
        queries = query[0].transpose(0, 1)
        new = (key[0].transpose(0, 1), value[0].transpose(0, 1))
        if isinstance(batch, TorchAttentionBatch):
            assert self.rotation is None
            if self.spec.owns_kv:
                write_kv_cache(*new, keys, values, batch.write_slots)
            out = torch_paged_attention(queries, keys, values, batch, scale, softcap, sinks)
            return out.unsqueeze(0)
        written = new if self.spec.owns_kv else (None, None)
        options = {"scale": scale, "sinks": sinks, "softcap": softcap or 0.0}
        return self._attend_with_kernels(queries, written, batch, options).unsqueeze(0)

    def _attend_with_kernels(
        self,
        queries: torch.Tensor,
        written: tuple[torch.Tensor | None, torch.Tensor | None],
        batch: "PagedBatch",
        options: dict[str, Any],
    ) -> torch.Tensor:
        from eightfold.kernels.attention.attention_dispatch import attend
        from eightfold.kernels.attention.triton_kernels.fp8_page_write import CacheTarget
        from eightfold.kernels.module_ops.rotate_and_write import rotate_and_write

        keys, values = self.cache.layers[self.spec.index]
        assert values is not None
        rotation = self.take_rotation()
        target = CacheTarget(keys, values, batch.slot_mapping, queries.dtype)
        assert target.keys is not None
        assert target.values is not None
        queries = rotate_and_write(
            queries, *written, rotation and rotation[:2], rotation and rotation[2],
            target.slots, target.keys, target.values, pdl=True,
        )  # fmt: skip
        if self.spec.owns_kv:
            target.finish()
        # Padding rows after chunks are not written, and must stay finite.
        chunks = batch.query_starts.shape[0] > 1
        out = torch.zeros_like(queries) if chunks else torch.empty_like(queries)
        attend(
            queries, keys, values, batch, out,
            window=self.spec.window, workspace=self.context.workspace, **options,
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
    """Attend over the pages attached to ``module``; transformers' signature of attention.

    Raises:
        NotImplementedError: if the model passes an option that would be silently ignored.
    """
    layer: PagedAttentionLayer = module.eightfold_layer  # type: ignore[assignment]
    unsupported = unsupported_options(attention_mask, dropout, kwargs)
    if unsupported:
        raise NotImplementedError(f"The model asks attention for {', '.join(unsupported)}.")
    if sliding_window != layer.spec.window and sliding_window is not None:
        raise NotImplementedError(
            f"Layer {layer.spec.index} attends in a window of {sliding_window}, "
            f"but its configuration says {layer.spec.window}."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return layer.attend(query, key, value, scale, softcap, s_aux), None


def attach(model: PreTrainedModel, architecture: Architecture, cache: KVCache) -> StepContext:
    """Replace the model's attention by attention over ``cache``, for good.

    Returns:
        The context through which a runner passes each step's batches.
    """
    # There is no mask function of this name, so that transformers makes no masks: the batches of
    # the step say which keys are visible.
    AttentionInterface.register(NAME, attention_forward)
    context = StepContext()
    for spec, module in zip(architecture.layers, attention_modules(model), strict=True):
        module.eightfold_layer = PagedAttentionLayer(spec, cache, context)  # type: ignore[assignment]
    model.set_attn_implementation(NAME)
    return context


def attach_drafter(
    drafter: PreTrainedModel, sources: Sequence[LayerSpec], cache: KVCache
) -> StepContext:
    """Replace a drafter's attention by attention over its model's cache, which it only reads.

    Args:
        sources: for each of its layers, the model's layer whose keys and values it reads.

    Returns:
        As :func:`attach`.
    """
    AttentionInterface.register(NAME, attention_forward)
    context = StepContext()
    for source, module in zip(sources, attention_modules(drafter), strict=True):
        spec = replace(source, source=-1)  # whoever has no keys of its own writes none
        module.eightfold_layer = PagedAttentionLayer(spec, cache, context)  # type: ignore[assignment]
    drafter.set_attn_implementation(NAME)
    return context
