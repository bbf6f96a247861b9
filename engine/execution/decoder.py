"""What a GPU runner asks of a model, and the sizes both are made for."""

from dataclasses import dataclass
from typing import Protocol

import torch

from eightfold.kernels.attention.attention_dispatch import PagedBatch
from eightfold.kernels.attention.paged_decode import decode_workspace_size, default_config

from ..inspection.architecture import LayerSpec
from .gpu_batch import padded_rows, table_width
from .kv_cache import KVCache


class Decoder(Protocol):
    """A model over the paged cache.

    softcap: what its logits still have to go through; 0 for nothing. capturable: whether a step
    makes no decision on the host, so that a graph can hold it.
    """

    softcap: float
    capturable: bool

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batches: dict[int | None, PagedBatch],
        cache: KVCache,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits [R, V] of the ``rows`` (int32 [R]; ``None`` for all) of a step of T rows.

        tokens, positions: int32 [T]. Where ``rows`` is empty the step only writes the cache.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """Most sequences in a step, tokens in a step, and tokens of a sequence."""

    running: int
    step_tokens: int
    context: int

    @property
    def decode_rows(self) -> int:
        return padded_rows(self.running)

    @property
    def decode_sizes(self) -> list[int]:
        """Rows of the steps of single tokens, largest first."""
        return [1 << i for i in reversed(range(self.decode_rows.bit_length()))]

    def workspace(self, layer: LayerSpec, heads: int, page_size: int) -> int:
        """float32 elements that decoding takes in a layer."""
        config = default_config(layer.window or 0, one_copy=layer.one_copy)
        if not config.split_tokens:
            return 0
        tokens = table_width(layer.window, 1, self.context, page_size) * page_size
        return decode_workspace_size(
            self.decode_rows,
            1,
            heads,
            layer.head_dim,
            tokens,
            config.split_tokens,
            config.short_split_tokens,
        )

    @property
    def rows(self) -> int:
        """Most rows of a step, padding included."""
        return max(self.decode_rows, -(-self.step_tokens // 16) * 16)
