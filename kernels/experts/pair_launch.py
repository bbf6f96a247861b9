"""Arguments of the kernels that compute experts, and the limits of those for few rows.

A pair is a row and one of its experts.
"""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..cuda.nvrtc import is_hopper
from .expert_weights import ExpertWeights
from .router import ROUTED, Routing

FALLBACK = "another kernel computes experts"
MOST_STREAMED_PAIRS = 1024  # the list of pairs in a stream's shared memory
MOST_CHOSEN = 32  # experts of a row: a stream chooses one for each lane of a warp
SHARED_BYTES = 232448  # of a program on Hopper
STREAM_BYTES = 12288  # of those, for a stream's barriers and its lists of experts, tiles and pairs


@dataclass(frozen=True, slots=True)
class PairLaunch:
    """The inputs and outputs of a kernel that computes all pairs' weighted outputs.

    Attributes:
        x: bfloat16 [rows, hidden].
        ids: int32 [rows, top_k].
        weights: float32 [rows, top_k].
        h: bfloat16 memory of at least rows * top_k * inner elements.
        parts: float32 [top_k, rows, hidden], written.
        pdl: launch with programmatic dependent launch. The launch before may write x, ids and
            weights.
        routing: for streams: what ids and weights are computed from, and then written; ``None`` if
            they are there.
        counters: for streams: int32, zeros before the first call; see ``experts_forward``.
    """

    x: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    h: torch.Tensor
    parts: torch.Tensor
    pdl: bool
    routing: Routing | None = None
    counters: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.ids.shape[0]

    @property
    def top_k(self) -> int:
        """Experts of each row."""
        return self.ids.shape[1]

    @property
    def routed(self) -> int:
        """The macro ROUTED of a stream."""
        return ROUTED[None if self.routing is None else self.routing.kind]

    def stream_tensors(self, *stored: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Return what a stream takes, in its order, with what is stored of experts in between."""
        logits = None if self.routing is None else self.routing.logits
        scale = None if self.routing is None else self.routing.expert_scale
        first = (self.x, self.ids, self.weights, logits, scale)
        return (*first, *stored, self.h, self.parts, self.counters)


def kernel_arguments(
    tensors: Iterable[torch.Tensor | None], rows: int
) -> list[ctypes._SimpleCData]:
    """Return the addresses of tensors, 0 for ``None``, and the number of rows."""
    pointers = [ctypes.c_void_p(0 if t is None else t.data_ptr()) for t in tensors]
    return [*pointers, ctypes.c_int(rows)]


def stream_fits(rows: int, top_k: int, experts: ExpertWeights, most_experts: int) -> bool:
    """Return whether experts and this many rows meet what both streams require."""
    biases = (experts.gate_up_bias, experts.down_bias)
    return (
        is_hopper(experts.gate_up_rows.device)
        and rows * top_k <= MOST_STREAMED_PAIRS
        and top_k <= MOST_CHOSEN
        and experts.experts <= most_experts
        and len({bias is None for bias in biases}) == 1
        and all(bias is None or bias.dtype == torch.bfloat16 for bias in biases)
    )
