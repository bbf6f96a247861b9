"""The tail of a dense layer in one launch, up to the next layer's first linear layer.

It is a ``linear_chain`` of the output projection, norms, the gated feed-forward block, norms and
the following linear layer.
"""

from dataclasses import dataclass

import torch

from .chain_layers import ChainLinear, ChainNorms, linear_chain_reference
from .linear_chain import COUNTERS, linear_chain, linear_chain_fits

__all__ = [
    "COUNTERS",
    "LayerTailWeights",
    "layer_tail",
    "layer_tail_fits",
    "layer_tail_reference",
]


@dataclass(frozen=True, slots=True)
class LayerTailWeights:
    """Weights from the end of a layer's attention on, in bfloat16; linear layers are [out, in].

    Attributes:
        output: output projection of attention, [width, attended].
        gate_up: gate and up projections, [2 * inner, width], gate rows first.
        down: down projection, [width, inner].
        following: the next layer's first linear layer, or the language model's head, [n, width].
            ``None`` ends the tail with the norm before it.
        post_attention: weight of the norm after attention, [width]; ``None`` for none.
        pre_feedforward: weight of the norm before the feed-forward block; ``None`` for none.
        post_feedforward: weight of the norm after it; ``None`` for none.
        next_norm: weight of the norm before ``following``; ``None`` for none.
        scale: factor of the residual at the end of the layer.
        output_bias: bias of the output projection, [width]; ``None`` for none.
        activation: of the feed-forward block, "gelu_tanh" or "silu".
        norm_offset: what is added to the weights of all norms.
    """

    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    following: torch.Tensor | None
    post_attention: torch.Tensor | None
    pre_feedforward: torch.Tensor | None
    post_feedforward: torch.Tensor | None
    next_norm: torch.Tensor | None
    scale: float = 1.0
    output_bias: torch.Tensor | None = None
    activation: str = "gelu_tanh"
    norm_offset: float = 0.0

    @property
    def linears(self) -> list[ChainLinear]:
        """The tail as a chain."""
        before = ChainNorms(self.post_attention, self.pre_feedforward, self.output_bias)
        after = ChainNorms(self.post_feedforward, self.next_norm, scale=self.scale)
        return [
            ChainLinear(self.output),
            ChainLinear(self.gate_up, before, gated=True),
            ChainLinear(self.down),
            ChainLinear(self.following, after),
        ]


def layer_tail_fits(weights: LayerTailWeights) -> bool:
    """Return whether ``layer_tail`` supports these weights on their device."""
    return linear_chain_fits(weights.linears, weights.output.shape[0], weights.activation)


def layer_tail(
    attended: torch.Tensor,
    residual: torch.Tensor,
    weights: LayerTailWeights,
    buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor | None,
    counters: torch.Tensor,
    *,
    squares: torch.Tensor | None = None,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Compute the output projection, norms, gated feed-forward, norms and the next linear layer.

    Args:
        attended: results of attention, [rows, attended], 1 to 64 rows.
        residual: [rows, width], updated in place.
        weights: weights that ``layer_tail_fits`` accepts.
        buffers: y and normed, [rows, width], and hidden, [rows, inner]; overwritten. Afterwards
            ``normed`` holds the input of the following linear layer.
        out: output, [rows, n], in bfloat16, or in float32 for logits; ``None`` without
            ``following``.
        counters: int32 [8], zero.
        squares: as in ``linear_chain``.
        eps: added to the mean square in the norms.
        pdl: launch with programmatic dependent launch. The launch before must not write weights.

    Raises:
        ValueError: a shape, dtype or device is not supported.
    """
    y, normed, hidden = buffers
    linear_chain(
        attended, residual, weights.linears, normed, (y, hidden, y, out), counters,
        squares=squares, activation=weights.activation, norm_offset=weights.norm_offset, eps=eps,
        pdl=pdl,
    )  # fmt: skip


def layer_tail_reference(
    attended: torch.Tensor, residual: torch.Tensor, weights: LayerTailWeights, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Compute what ``layer_tail`` computes, in float64.

    Returns:
        The residual, the input of the following linear layer, and the output.
    """
    residual, normed, out = linear_chain_reference(
        attended, residual, weights.linears,
        activation=weights.activation, norm_offset=weights.norm_offset, eps=eps,
    )  # fmt: skip
    assert normed is not None
    return residual, normed, out
