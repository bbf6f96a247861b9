"""The protocol of models that the GPU runner runs, and their memory for decode steps."""

from typing import Protocol, runtime_checkable

import torch

from eightfold.kernels.attention.attention_dispatch import PagedBatch
from eightfold.kernels.attention.paged_decode import default_decode_config
from eightfold.kernels.attention.split_kv import decode_workspace_size

from ..inspection.architecture import Architecture
from ..inspection.kv_geometry import LayerSpec
from .gpu_batch import page_table_width
from .kv_cache import KVCache
from .runner_limits import RunnerLimits


class Decoder(Protocol):
    """A model over the paged cache.

    Attributes:
        softcap: cap that the logits still have to be passed through; 0 for none.
        capturable: True if a step makes no decision on the host, so that a graph can hold it.
        path: how the layers run, for the start-up table: "fused", "graph" or "plain".
        path_reason: why, as a clause.
    """

    softcap: float
    capturable: bool
    path: str
    path_reason: str

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run a step of T rows, and return logits [R, vocabulary] of some of them.

        Args:
            tokens: int32 [T].
            positions: int32 [T].
            batches: attention batch of each window.
            rows: int32 [R], rows that logits are wanted of; ``None`` for all. If it is empty, the
                step only writes the cache.
        """


@runtime_checkable
class UncertainCapture(Protocol):
    """A decoder whose steps may turn out not to be capturable, as transformers' modules may."""

    def give_up_graphs(self, error: Exception) -> None:
        """Take note that the capture of a step failed: steps run without graphs from now on."""


def decode_workspace(
    architecture: Architecture, limits: RunnerLimits, page_size: int, device: torch.device
) -> torch.Tensor:
    """Allocate the float32 memory that decode attention needs in the most demanding layer."""
    heads = int(architecture.config.num_attention_heads)
    sizes = [
        _workspace_size(layer, heads, limits, page_size, *size)
        for layer in architecture.layers
        for size in limits.decode_sizes
    ]
    return torch.empty(max(sizes), device=device)


def _workspace_size(
    layer: LayerSpec, heads: int, limits: RunnerLimits, page_size: int, sequences: int, rows: int
) -> int:
    config = default_decode_config(layer.window or 0, one_copy=layer.one_copy)
    if not config.split_tokens:
        return 0
    moved = 2 * rows - 1  # as wide as the runner's tables
    tokens = page_table_width(layer.window, moved, limits.max_context, page_size) * page_size
    return decode_workspace_size(
        sequences,
        rows,
        heads,
        layer.head_dim,
        tokens,
        config.split_tokens,
        config.short_split_tokens,
        layer.window or 0,
    )
